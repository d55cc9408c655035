from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from simulate import grid, make_trial, write_sweep
from statsmodels.stats.multitest import multipletests

import analysis
from analysis.errors import BadRequestError
from analysis.statistics.cells import observe
from analysis.statistics.compare import against, compare, first, ranking
from analysis.statistics.intervals import summarise
from analysis.statistics.levels import labels, select
from analysis.tables.numbers import mean_text, number
from analysis.tables.wording import sentence, verdict_text


def differences(sweep: analysis.Sweep, level: str, baseline: str) -> np.ndarray:
    """Cell − baseline by seed, computed straight from the frame."""
    means = sweep.trials.groupby(["adapter.init", "seed"])["eval/loss"].mean()
    return (means[level] - means[baseline]).to_numpy()


def test_compare_equals_scipy_on_the_frame(tmp_path: Path):
    trials = grid(rank=[2], init=["gaussian", "kaiming", "olora", "pissa"], references=())
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(5)))
    seen = observe(sweep.trials, ("adapter.init",), "eval/loss")
    found = compare(seen, against(seen, ("kaiming",)))
    levels = [item.cell[0] for item in found]
    assert levels == ["gaussian", "olora", "pissa"]
    ps = [stats.ttest_1samp(differences(sweep, level, "kaiming"), 0).pvalue for level in levels]
    assert [item.p_holm for item in found] == pytest.approx(multipletests(ps, method="holm")[1])
    assert [item.difference.mean for item in found] == pytest.approx(
        [differences(sweep, level, "kaiming").mean() for level in levels]
    )


def test_compare_finds_known_effects(rank_sweep: Path):
    trials = analysis.load(rank_sweep).trials
    seen = observe(trials, ("adapter.rank",), "eval/loss")
    verdicts = {item.cell[0]: item.verdict for item in compare(seen, against(seen, ("4",)))}
    assert verdicts == {"1": "worse", "2": "worse", "full": "better", "none": "worse"}


def test_labels_tell_a_setting_called_none_from_the_untouched_base(tmp_path: Path):
    truth = {"none": 1.0, "all": 2.0, None: 9.0}
    trials = grid(references=("none",), rank=[4], bias=["none", "all"])
    path = write_sweep(tmp_path / "s", trials, np.random.default_rng(5), lambda trial: truth[trial["adapter"]["bias"]])
    sweep = analysis.load(path)
    seen = observe(sweep.trials, ("adapter.bias",), "eval/loss")
    assert seen.filled == [("all",), ("bias none",), ("none",)]
    assert {cell: round(seen.summary(cell).mean) for cell in seen.filled} == {
        ("all",): 2,
        ("bias none",): 1,
        ("none",): 9,
    }
    assert first(ranking(seen, seen.filled)) == ("bias none",)  # the untouched base takes no part, this cell does
    kept = select(sweep.trials, {"adapter.bias": ["none"]})
    assert set(labels(kept, "adapter.bias")) == {"bias none", "none"}


def test_compare_takes_higher_for_better_where_the_metric_says_so(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(5) for r in (1, 4)]
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(5)))
    frame = sweep.trials.assign(**{"eval/accuracy": 1 - sweep.trials["eval/loss"] / 10})
    seen = observe(frame, ("adapter.rank",), "eval/accuracy")
    assert compare(seen, against(seen, ("1",)))[0].verdict == "better"


def test_compare_concludes_nothing_from_too_few_seeds(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(2) for r in (1, 4)]
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(5)))
    seen = observe(sweep.trials, ("adapter.rank",), "eval/loss")
    (only,) = compare(seen, against(seen, ("1",)))
    assert only.verdict == "too few seeds"
    assert "nothing can be concluded from 2 shared seeds" in sentence(only)
    assert first(ranking(seen, seen.filled)) is None


def test_compare_finds_differences_that_never_vary_not_significant(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(5) for r in (1, 4)]
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(5)))
    frame = sweep.trials.assign(**{"eval/loss": sweep.trials["adapter.rank"] * 1.0})
    seen = observe(frame, ("adapter.rank",), "eval/loss")
    (only,) = compare(seen, against(seen, ("1",)))
    assert only.verdict == "no variation"
    assert "seeds have no effect" in sentence(only)


def test_sentence_of_a_null_effect_names_what_could_have_been_seen(tmp_path: Path):
    trials = [make_trial(s, rank=4, dropout=d) for s in range(5) for d in (0.0, 0.1)]
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(6)))
    seen = observe(sweep.trials, ("adapter.dropout",), "eval/loss")
    (only,) = compare(seen, against(seen, ("0",)))
    assert only.verdict == "not distinguishable"
    assert sentence(only).startswith("not distinguishable (could have seen ≥ 0.0")
    assert first(ranking(seen, seen.filled)) is None


def test_against_a_row_stays_in_its_column(rank_sweep: Path):
    seen = observe(analysis.load(rank_sweep).trials, ("adapter.rank", "adapter.targets"), "eval/loss")
    pairs = against(seen, ("4",))
    assert (("1", "attention"), ("4", "attention")) in pairs
    assert all(cell[1] == base[1] for cell, base in pairs)
    assert all(base == ("4", "all_linear") for _, base in against(seen, ("4", "all_linear")))
    assert (("1", "attention"), ("full", "full")) in against(seen, ("full",))
    with pytest.raises(BadRequestError, match="unknown baseline level of adapter"):
        against(seen, ("3",))


def test_ranking_is_never_won_by_the_untouched_base(rank_sweep: Path):
    trials = analysis.load(rank_sweep).trials
    base = trials["adapter.kind"] == "none"
    trials.loc[base, "eval/source_loss"] = 0.1 + 0.001 * trials.loc[base, "seed"]
    seen = observe(trials, ("adapter.rank",), "eval/source_loss")
    assert min(seen.filled, key=lambda cell: seen.summary(cell).mean) == ("none",)
    assert first(ranking(seen, seen.filled)) == ("1",)


def test_verdict_text_reads_in_a_few_lines(rank_sweep: Path):
    seen = observe(analysis.load(rank_sweep).trials, ("adapter.init",), "eval/loss")
    text = verdict_text(seen, ("kaiming",), compare(seen, against(seen, ("kaiming",))))
    assert len(text.splitlines()) <= 10
    assert "pissa" in text
    assert "Holm-corrected over 3 comparisons" in text
    assert "could not go below p=0.0625 at 5 seeds" in text


def test_number_reads_well():
    assert [number(v) for v in (0.012345, 1234.5, 2e9, float("nan"))] == ["0.0123", "1234", "2e+09", "–"]
    assert number(-0.5, signed=True) == "−0.5"
    assert mean_text(summarise([1.0, 2.0, 3.0])) == "2.0 ± 2.5 (n=3)"
    assert mean_text(summarise([1.25])) == "1.25 (n=1)"
