"""Verdicts for new examples, and every sentence about them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scored_sweeps import compared, equal, noted, scored, table
from simulate import grid, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.report import paragraphs
from analysis.report.answer import Answer, add_comparison
from analysis.statistics.cells import observe
from analysis.statistics.compare import against, compare
from analysis.statistics.crossed import Layout, layout
from analysis.statistics.intervals import paired
from analysis.statistics.questions import deciding, questions
from analysis.tables.wording import bottleneck_text, sentence, verdict_text


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
        "* differs from 1 (paired tests over seeds and examples at equal seeds, Holm-corrected over 1 comparison"
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
