"""Verdicts for new examples: the scores behind each cell, the crossed test, and every sentence about it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulate import grid, make_trial, write_scores, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.report import paragraphs
from analysis.report.answer import Answer, add_comparison
from analysis.statistics import crossed
from analysis.statistics.cells import observe
from analysis.statistics.compare import Comparison, against, compare
from analysis.statistics.crossed import Layout, layout, needed
from analysis.statistics.effects import effects
from analysis.statistics.examples import by_unit
from analysis.statistics.intervals import paired
from analysis.statistics.questions import deciding, questions
from analysis.tables.table import Table, build
from analysis.tables.wording import bottleneck_text, sentence, verdict_text
from sweep import scores
from sweep.scores import EVALUATED_FILE, SCORES_FILE

RANKS = grid(range(5), (), rank=[1, 4])


def equal(trial: object) -> float:
    return 1.0


def scored(place: Path, trials: list[dict] = RANKS, truth: Callable = equal, **given: object) -> Path:
    """A sweep of equal cells whose trials were scored; by default with an example effect of 0.113."""
    folder = write_sweep(place / "s", trials, np.random.default_rng(3), truth, points=2)
    return write_scores(folder, np.random.default_rng(4), **({"example_sd": 0.113, "both_sd": 0.03} | given))


def compared(folder: Path, metric: str = "test/loss", generalise: str = "both", **given: float) -> Comparison:
    sweep = analysis.load(folder)
    observations = observe(sweep.trials, ("adapter.rank",), metric, sweep.metrics, generalise)
    [only] = compare(observations, against(observations, ("1",)), **given)
    return only


def table(folder: Path, **given: object) -> Table:
    return build(analysis.load(folder), "adapter.rank", None, **{"baseline": ("1",), **given})


def noted(folder: Path, words: str, **given: object) -> str:
    """The one note of the table that begins with ``words``."""
    [note] = [note for note in table(folder, **given).notes if note.startswith(words)]
    return note


# The two-way layout


def drawn(n: int, m: int, seed: float, example: float, both: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.normal(0, seed, (n, 1)) + rng.normal(0, example, (1, m)) + rng.normal(0, both, (n, m))


def test_layout_has_the_mean_squares_of_a_two_way_analysis_of_variance():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    d = drawn(4, 9, 0.3, 0.5, 0.2)
    places = np.indices(d.shape).reshape(2, -1)
    frame = pd.DataFrame({"d": d.ravel(), "s": places[0], "e": places[1]})
    expected = anova_lm(ols("d ~ C(s) + C(e)", frame).fit())
    found = layout(d)
    assert [found.seeds, found.examples, found.both] == pytest.approx(expected["sum_sq"] / expected["df"])


def test_layout_error_by_hand():
    # (6 + 5 − 2) / (3 · 4) = 0.75; Satterthwaite: 9² / (6² / 2 + 5² / 3 + 2² / 6) = 3
    error = Layout(3, 4, 6.0, 5.0, 2.0).error
    assert (error.size**2, error.freedom) == pytest.approx((0.75, 3.0))
    # (6 + 1 − 4) < 6: the floor, 6 / 12 with the freedom of seeds
    floor = Layout(3, 4, 6.0, 1.0, 4.0).error
    assert (floor.size**2, floor.freedom) == pytest.approx((0.5, 2.0))


@pytest.mark.parametrize("spread", [(0.3, 0.5, 0.2), (0.5, 0.0, 0.1), (0.0, 0.5, 0.1)])
def test_tested_for_both_has_the_larger_p_and_the_wider_interval(spread: tuple[float, float, float]):
    d = drawn(4, 30, *spread) + 0.1
    both, over_seeds = layout(d).error, paired(d.mean(axis=1))
    found = crossed.tested(d.mean(axis=1), d, "both")
    p = 2 * stats.t.sf(abs(d.mean()) / both.size, both.freedom)
    assert found.p == pytest.approx(max(over_seeds.p, p))
    assert found.high - found.low == pytest.approx(max(over_seeds.high - over_seeds.low, 2 * both.half))
    assert crossed.tested(d.mean(axis=1), d, "seeds") == over_seeds


def test_tested_for_examples_is_a_t_test_of_their_means_over_seeds():
    d = drawn(4, 30, 0.3, 0.5, 0.2)
    expected = stats.ttest_1samp(d.mean(axis=0), 0)
    found = crossed.tested(d.mean(axis=1), d, "examples")
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.n == 4


def test_needed_names_the_bottleneck():
    of_examples, of_seeds = layout(drawn(10, 64, 0.001, 0.1, 0.03)), layout(drawn(5, 2000, 0.1, 0.1, 0.03))
    found = needed([of_examples])
    assert found is not None
    assert (found.examples is not None, found.seeds) == (True, None)
    assert of_examples.resized(10, found.examples).half <= of_examples.half / 2
    assert of_examples.resized(10, found.examples - 1).half > of_examples.half / 2
    found = needed([of_seeds])
    assert found is not None
    assert (found.examples, found.seeds is not None) == (None, True)


def test_by_unit_has_the_ratio_as_its_mean_and_the_spread_of_its_jackknife():
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 20, 400).astype(float)
    sums = (rng.normal(1.3, 0.4, 400) * weight)[None]
    parts = by_unit(sums, weight, np.arange(400))[0]
    assert parts.mean() == pytest.approx(sums.sum() / weight.sum())
    without = (sums.sum() - sums[0]) / (weight.sum() - weight)
    jackknife = np.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    assert parts.std(ddof=1) / 20 == pytest.approx(jackknife, rel=0.01)


def test_by_unit_sums_clusters_first():
    sums, weight = np.array([[1.0, 2.0, 3.0, 6.0]]), np.array([1.0, 1.0, 2.0, 2.0])
    found = by_unit(sums, weight, np.array([7, 3, 7, 3]))
    # clusters 3 and 7 have sums 8 and 4, weights 3 and 3: ratio 12 / 6 = 2, parts 2 + (8 − 6) / 3 and 2 + (4 − 6) / 3
    assert found == pytest.approx(np.array([[2 + 2 / 3, 2 - 2 / 3]]))


# Scores of the trials behind a cell


def test_scores_have_the_printed_value_as_their_mean(tmp_path: Path):
    trials = grid(range(3), (), rank=[1, 4], init=["kaiming", "pissa"])
    sweep = analysis.load(scored(tmp_path, trials))
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss", sweep.metrics)
    assert seen.scores is not None
    assert seen.scores.shape == (6, 64)
    assert seen.scores.mean(axis=1) == pytest.approx(seen.values["value"].to_numpy())


def test_scores_are_those_of_the_rates_that_the_other_seeds_chose(tmp_path: Path):
    folder = scored(tmp_path, grid(range(4), (), rank=[1, 4], lr=[1e-3, 3e-3]), example_sd=0.5)
    sweep = analysis.load(folder)
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss", sweep.metrics)
    rates = sweep.trials.loc[seen.detail["trial"], "optimizer.lr"]
    assert rates.nunique() == 2  # equal rates: the halves disagree
    assert seen.values["value"].to_numpy() == pytest.approx(
        sweep.trials.loc[seen.detail["trial"], "test/loss"].to_numpy()
    )
    for place, scores_of_row in zip(seen.detail["trial"], seen.scores, strict=True):
        own = scores.read(Path(sweep.trials.loc[place, "folder"]) / SCORES_FILE)["target"]
        assert scores_of_row == pytest.approx(
            by_unit(own.sums["test/loss"][None], own.weight, own.example)[0], rel=1e-5
        )


def test_examples_of_one_kind_of_text_make_no_verdict(tmp_path: Path):
    folder = scored(tmp_path)
    assert compared(folder, generalise="seeds").verdict in ("better", "worse")
    only = compared(folder)
    assert only.verdict == "not distinguishable"
    d = observe(analysis.load(folder).trials, ("adapter.rank",), "test/loss").differences(("4",), ("1",))[1]
    assert only.difference.p == pytest.approx(max(paired(d.mean(axis=1)).p, layout(d).error.p(d.mean())))
    assert only.detectable > compared(folder, generalise="seeds").detectable


def test_examples_leave_a_verdict_that_holds_for_new_ones(tmp_path: Path):
    folder = scored(tmp_path, truth=lambda trial: 1 + 0.2 / trial["adapter"]["rank"])
    assert compared(folder).verdict == "better"
    assert noted(folder, "* differs").startswith(
        "* differs from 1 (paired tests over seeds and examples at equal seeds, Holm-corrected over 1 comparisons"
    )
    assert noted(folder, "Bold") == (
        "Bold: better than every other trained cell (paired tests over seeds and examples, Holm-corrected)."
    )


def test_dependence_on_a_level_must_hold_for_new_examples(tmp_path: Path):
    trials = grid(range(5), (), rank=[1, 8], init=["kaiming", "pissa"])

    def verdict(folder: Path, generalise: str) -> str:
        sweep = analysis.load(folder)
        seen = observe(sweep.trials, ("adapter.init",), "test/loss", sweep.metrics, generalise)
        return compare(seen, against(seen, ("kaiming",)))[0].verdict

    of_examples = scored(tmp_path, trials, example_sd=0.3)
    assert verdict(of_examples, "seeds") == "depends"
    assert verdict(of_examples, "both") == "not distinguishable"

    def crossing(trial: dict) -> float:
        adapter = trial["adapter"]
        return 1.0 + (adapter["init"] == "pissa") * (-0.1 if adapter["rank"] == 1 else 0.1)

    assert verdict(scored(tmp_path / "b", trials, crossing, example_sd=0.05), "both") == "depends"


# Sentences


def test_note_says_what_verdicts_generalise_to(tmp_path: Path):
    folder = scored(tmp_path, clusters=[place // 4 for place in range(64)])
    ends = "; ± is over seeds, on these examples."
    for generalise, what in {
        "both": "new seeds and new examples (5 seeds × 64 examples in 16 clusters)",
        "seeds": "new seeds only (5 seeds, on the same 64 examples in 16 clusters)",
        "examples": "new examples only (64 examples in 16 clusters, for the same 5 seeds)",
    }.items():
        assert noted(folder, "Verdicts", generalise=generalise) == f"Verdicts generalise to {what}{ends}"
    assert noted(folder, "Verdicts", metric="eval/loss") == (
        "Verdicts generalise to new seeds only, on the same examples: the trials share no scores of single examples for eval/loss."
    )
    assert not [note for note in table(folder, metric="params/trainable").notes if note.startswith("Verdicts")]


def test_note_names_the_bottleneck(tmp_path: Path):
    note = noted(scored(tmp_path), "Examples are the bottleneck: ")
    assert note.endswith(
        " examples would halve the interval of a typical difference; more seeds would not (by the mean squares of seeds "
        "and examples)."
    )
    few = scored(tmp_path / "b", grid(range(3), (), rank=[1, 4]), example_sd=0.001, both_sd=0.001)
    assert "Seeds are the bottleneck: " in noted(few, "Seeds are")


@pytest.mark.parametrize(
    ("of", "says"),
    [
        # the freedom grows too: 249 and not 4 · 64 examples, and 13 seeds where t(4) / √5 ≥ 2 · t(12) / √13
        (
            Layout(10, 64, 1.0, 50.0, 1.0),
            "Examples are the bottleneck: 250 examples would halve the interval of a typical",
        ),
        (Layout(5, 64, 50.0, 1.0, 1.0), "Seeds are the bottleneck: 13 seeds would halve the interval of a typical"),
        (Layout(10, 64, 1.0, 1.0, 1.0), "33 seeds or 250 examples would halve the interval of a typical"),
        (Layout(20, 64, 30.0, 30.0, 1.0), "Only more seeds and more examples together would halve the interval of a"),
    ],
    ids=["examples", "seeds", "either", "together"],
)
def test_bottleneck_text_says_what_would_halve_the_interval(of: Layout, says: str):
    compared = [SimpleNamespace(layout=of, verdict="not distinguishable")]
    assert bottleneck_text(SimpleNamespace(scored=None), compared).startswith(says)


def test_report_says_how_it_tested_and_what_is_equivalent(tmp_path: Path):
    [question], _ = questions(analysis.load(scored(tmp_path)))
    answered = Answer(replace(question, margin=0.2))
    add_comparison(answered, "adapter.rank")
    assert "(n=5), tested by paired tests over seeds and examples, and Holm" in paragraphs.certainty(
        answered.comparisons
    )
    assert "Against rank 1 — equivalent: 4 (within ±0.2)." in paragraphs.findings(question, answered.comparisons, None)
    assert "lowest mean test loss" in paragraphs.findings(question, answered.comparisons, None)


def test_effects_are_of_the_values_that_a_table_has(tmp_path: Path):
    folder = write_scores(scored(tmp_path), np.random.default_rng(9), 0.5, 0.0, range(512), file=EVALUATED_FILE)
    found = effects(analysis.load(folder).trials, "test/loss")
    assert "evaluated" in [note.kind for note in found.notes]
    for path in folder.glob(f"*/{EVALUATED_FILE}"):
        path.unlink()
    assert effects(analysis.load(folder).trials, "test/loss").effects != found.effects


def test_comparison_in_words_says_how_it_was_tested(tmp_path: Path):
    folder = scored(tmp_path)
    observations = observe(analysis.load(folder).trials, ("adapter.rank",), "test/loss")
    text = verdict_text(observations, ("1",), compare(observations, against(observations, ("1",))))
    assert (
        "a test with seeds and examples as crossed random effects, the interval the wider, Holm-corrected over 1"
        in text
    )
    assert "Examples are the bottleneck" in text
    observations = observe(analysis.load(folder).trials, ("adapter.rank",), "test/loss", generalise="examples")
    text = verdict_text(observations, ("1",), compare(observations, against(observations, ("1",))))
    assert "Paired t test over examples, Holm-corrected over 1 comparison." in text


def test_verdict_over_examples_needs_no_three_seeds(tmp_path: Path):
    folder = scored(tmp_path, grid(range(2), (), rank=[1, 4]), lambda trial: 1 + 0.5 / trial["adapter"]["rank"])
    assert compared(folder).verdict == "too few seeds"
    assert compared(folder, generalise="examples").verdict == "better"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"\x00" * 20), "not scores of examples"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "not scores of examples"),
        (lambda path: path.unlink() or path.mkdir(), "is a folder"),
        (lambda path: _rewrite(path, 2.0), "its scores are not those of its record"),
        (lambda path: _rewrite(path, np.nan), "test/loss of an example is not a number"),
    ],
    ids=["garbage", "torn", "folder", "other", "nan"],
)
def test_damaged_scores_are_one_line_and_verdicts_are_over_seeds(spoil: Callable, says: str, tmp_path: Path):
    folder = scored(tmp_path)
    spoil(folder / "trial_00003" / SCORES_FILE)
    note = noted(folder, "WARNING: scores of examples are left out")
    assert "trial_00003" in note
    assert says in note
    assert noted(folder, "Verdicts").startswith("Verdicts generalise to new seeds only, on the same examples")
    assert compared(folder).p_holm == compared(folder, generalise="seeds").p_holm


def test_scores_beyond_memory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.sources.scores.MOST_SCORES", 639)
    assert noted(scored(tmp_path), "WARNING: scores") == (
        "WARNING: scores of examples are left out: 10 trials on 64 examples have more than 639 scores."
    )


def _rewrite(path: Path, factor: float) -> None:
    own = scores.read(path)["target"]
    changed = {name: values * np.float32(factor) for name, values in own.sums.items()}
    scores.write({"target": scores.Scores(own.example, own.cluster, own.weight, changed)}, path)


def test_scores_that_are_missing_leave_verdicts_over_seeds(tmp_path: Path):
    folder = scored(tmp_path)
    (folder / "trial_00003" / SCORES_FILE).unlink()
    assert compared(folder).generalise == "seeds"
    assert noted(folder, "Verdicts").startswith("Verdicts generalise to new seeds only")


def test_examples_that_differ_are_compared_on_the_shared_ones(tmp_path: Path):
    folder = scored(tmp_path)
    half = write_scores_of(folder, rank=4, examples=range(32, 96))
    seen = observe(analysis.load(half).trials, ("adapter.rank",), "test/loss")
    assert seen.scores.shape == (10, 32)
    assert seen.values["value"].to_numpy() == pytest.approx(seen.scores.mean(axis=1))
    assert noted(half, "WARNING: trials were scored") == (
        "WARNING: trials were scored on different examples: values and verdicts are on the 32 that all of them share."
    )
    apart = write_scores_of(scored(tmp_path / "b"), rank=4, examples=range(100, 164))
    assert noted(apart, "Verdicts").startswith("Verdicts generalise to new seeds only")


def write_scores_of(folder: Path, rank: int, examples: range) -> Path:
    """Score the trials of one rank on other ``examples``; the records of the others stay."""
    before = {
        path: (path.read_bytes(), path.with_name(SCORES_FILE).read_bytes())
        for path in folder.glob("*/record.json")
        if json.loads(path.read_text())["trial"]["adapter"]["rank"] != rank
    }
    write_scores(folder, np.random.default_rng(4), 0.113, 0.03, examples)
    for path, (record, own) in before.items():
        path.write_bytes(record)
        path.with_name(SCORES_FILE).write_bytes(own)
    return folder


def test_evaluated_scores_take_the_place_of_the_records(tmp_path: Path):
    folder = write_scores(scored(tmp_path), np.random.default_rng(9), 0.113, 0.03, range(512), file=EVALUATED_FILE)
    sweep = analysis.load(folder)
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss")
    assert seen.scores.shape == (10, 512)
    assert seen.values["value"].to_numpy() == pytest.approx(seen.scores.mean(axis=1))
    assert noted(folder, "test/loss is what") == (
        "test/loss is what python -m sweep evaluate scored on 512 examples, in place of the records' own."
    )
    (folder / "trial_00002" / EVALUATED_FILE).unlink()
    assert observe(sweep.trials, ("adapter.rank",), "test/loss").scores.shape == (10, 64)
    assert noted(
        folder, "9 of 10 compared trials were scored by python -m sweep evaluate; the records' own scores are used"
    )


def test_scores_from_the_cache_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.sources.cache.FEWEST_KEPT", 1)
    folder = scored(tmp_path)
    whole, some = (observe(analysis.load(folder).trials, ("adapter.rank",), "test/loss").scores for _ in range(2))
    assert np.array_equal(whole, some)
    few = analysis.load(folder).trials.iloc[3:9]
    monkeypatch.setattr("sweep.scores.read", lambda path: pytest.fail("a file was read again"))
    assert observe(few, ("adapter.rank",), "test/loss").scores.shape == (6, 64)
    monkeypatch.undo()
    monkeypatch.setattr("analysis.sources.cache.FEWEST_KEPT", 1)
    _rewrite(folder / "trial_00003" / SCORES_FILE, 2.0)
    assert "its scores are not those of its record" in noted(folder, "WARNING: scores of examples are left out")


# Margins and the metric that decides


def test_equivalent_needs_a_margin_that_holds_for_new_examples(tmp_path: Path):
    folder = scored(tmp_path)
    assert compared(folder, margin=0.004).verdict == "not distinguishable"
    only = compared(folder, margin=0.2)
    assert sentence(only) == "equivalent (within ±0.2)"
    assert only.difference.p_outside(0.2) < 0.05
    seeds_only = compared(folder, generalise="seeds")
    narrow = abs(seeds_only.difference.mean) + 4 * seeds_only.difference.errors[0].size
    assert seeds_only.difference.p_outside(narrow) < 0.05 < only.difference.p_outside(narrow)
    assert noted(folder, "Equivalent", margin=0.2) == (
        "Equivalent to 1 within ±0.2: 4 (two one-sided tests, Holm-corrected)."
    )
    with pytest.raises(
        BadRequestError, match="--margin 0: the largest difference that does not matter must be above 0"
    ):
        compared(folder, margin=0.0)


def test_equivalent_is_said_beside_a_difference_and_not_where_seeds_were_lost(tmp_path: Path):
    trials = grid(range(5), (), rank=[1, 4])
    folder = write_sweep(tmp_path / "s", trials, np.random.default_rng(3), lambda t: 1 + 0.05 / t["adapter"]["rank"])
    assert sentence(compared(folder, "eval/loss", margin=0.5)) == "better, within ±0.5"
    lost = write_sweep(
        tmp_path / "t", trials, np.random.default_rng(3), equal, lambda t: t["seed"] == 0 and t["adapter"]["rank"] == 4
    )
    only = compared(lost, "eval/loss", margin=0.5)
    assert only.within is None
    assert sentence(only).endswith("; 1 of 5 diverged")


def test_deciding_metric_is_the_test_loss_where_every_trial_has_one(tmp_path: Path):
    folder = scored(tmp_path)
    sweep = analysis.load(folder)
    assert deciding(sweep.trials, sweep.metrics) == "test/loss"
    [question], _ = questions(sweep)
    assert (question.primary, "eval/loss" in question.secondary) == ("test/loss", False)
    assert table(folder).metric.label == "test loss"
    path = folder / "trial_00000" / "record.json"
    record = json.loads(path.read_text())
    del record["result"]["test/loss"]
    path.write_text(json.dumps(record))
    sweep = analysis.load(folder)
    assert deciding(sweep.trials, sweep.metrics) == "eval/loss"


# The end is one moment of a curve


def curved(place: Path, rise: float) -> Path:
    """Trials of rank 4 end ``rise`` above their step 150, those of rank 1 fall to the end."""
    folder = scored(place, [make_trial(seed, rank=rank) for seed in range(5) for rank in (1, 4)])
    rng = np.random.default_rng(5)
    for path in folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        up = rise if record["trial"]["adapter"]["rank"] == 4 else -0.1
        losses = np.array([2.0, 1.5, 1.2, 1.0, 1.0 + up]) + rng.normal(0, 0.01, 5)
        rows = [{"step": 50 * i, "eval/loss": loss, "eval/source_loss": 1 + i} for i, loss in enumerate(losses)]
        path.with_name("history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_better_earlier_names_the_cell_its_seeds_and_how_much(tmp_path: Path):
    folder = curved(tmp_path, 0.2)
    note = noted(folder, "WARNING: the end")
    assert note.startswith(
        "WARNING: the end is not the best of the curve: eval/loss was better earlier for 4 in 5 of 5 seeds, by 0."
    )
    assert note.endswith(" at step 150. training.keep=best keeps each trial's best.")
    forgotten = build(analysis.load(folder), "adapter.rank", None, "eval/source_loss")
    assert not [note for note in forgotten.notes if "the end" in note]
    for path in folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        record["trial"]["training"]["keep"] = "best"
        path.write_text(json.dumps(record))
    assert not [note for note in table(folder).notes if "the end" in note]


def test_better_earlier_is_not_said_of_noise(tmp_path: Path):
    assert not [note for note in table(curved(tmp_path, 0.0)).notes if "the end" in note]
