"""What a verdict must not hide: each case on simulated records, with the sentence that is printed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulate import grid, make_trial, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.report import paragraphs
from analysis.report.answer import Answer, add_comparison
from analysis.statistics.cells import observe
from analysis.statistics.compare import Comparison, against, compare, first, ranking
from analysis.statistics.effects import effects
from analysis.statistics.questions import questions
from analysis.tables.numbers import mean_and_half
from analysis.tables.render import render
from analysis.tables.table import build
from analysis.tables.wording import sentence, verdict_text

Change = Callable[[dict[str, Any]], Mapping[str, Any]]


def simulated(place: Path, trials: Sequence[dict], change: Change | None = None, **given: Any) -> analysis.Sweep:
    """A sweep of ``trials``; ``change`` gives what is different in a record."""
    folder = write_sweep(place / "s", trials, np.random.default_rng(3), points=2, **given)
    for path in folder.glob("*/record.json") if change else ():
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | dict(change(record))))
    return analysis.load(folder)


def compared(sweep: analysis.Sweep, factor: str, baseline: str, metric: str = "eval/loss") -> list[Comparison]:
    observations = observe(sweep.trials, (factor,), metric, sweep.metrics)
    return compare(observations, against(observations, (baseline,)))


def printed(sweep: analysis.Sweep, factor: str, baseline: str, metric: str = "eval/loss") -> tuple[str, str]:
    """The table and the comparison as the command line prints them."""
    observations = observe(sweep.trials, (factor,), metric, sweep.metrics)
    table = render(build(sweep, factor, None, metric, (baseline,)), "md")
    return table, verdict_text(observations, (baseline,), compare(observations, against(observations, (baseline,))))


def found(sweep: analysis.Sweep) -> str:
    """The report's paragraph on what was found."""
    [question], _ = questions(sweep)
    answered = Answer(question)
    for factor in question.factors:
        add_comparison(answered, factor)
    return paragraphs.findings(question, answered.comparisons, None)


def changed(trial: dict, **settings: Any) -> dict:
    """``trial`` with settings such as ``training_steps=500``."""
    for name, value in settings.items():
        group, _, key = name.partition("_")
        trial[group][key] = value
    return trial


def test_confounds_of_two_sweeps_leave_no_verdict_and_are_named(tmp_path: Path):
    trials = [changed(make_trial(s, rank=1), training_steps=100, optimizer_schedule="constant") for s in range(5)]
    trials += [changed(make_trial(s, rank=4), training_steps=500, optimizer_schedule="cosine") for s in range(5)]
    sweep = simulated(tmp_path, trials)
    table, verdict = printed(sweep, "adapter.rank", "1")
    words = "also differ in optimizer.schedule (constant, cosine) and training.steps (100, 500)"
    assert f"- WARNING: rank 1 and 4 {words}: no verdict" in table
    assert "For a fair comparison, train them with the same optimizer.schedule and training.steps" in table
    assert "**" not in table
    assert f"no verdict: 1 and 4 {words}" in verdict
    assert f"no verdict: 4 (1 and 4 {words})" in found(sweep)
    assert "better" not in found(sweep)


def test_confounds_inside_one_sweep_are_batch_size_and_an_untuned_rate(tmp_path: Path):
    trials = [changed(make_trial(s, rank=1, lr=1e-2), training_batch_size=32) for s in range(5)]
    trials += [changed(make_trial(s, rank=4, lr=3e-3), training_batch_size=64) for s in range(5)]
    [only] = compared(simulated(tmp_path, trials), "adapter.rank", "1")
    assert only.verdict == "refused"
    assert sentence(only) == (
        "no verdict: 1 and 4 also differ in optimizer.lr (0.01, 0.003) and training.batch_size (32, 64)"
    )


def test_confounds_are_no_settings_that_references_lack_and_no_tuned_rates(tuned_sweep: Path, rank_sweep: Path):
    for sweep in map(analysis.load, (tuned_sweep, rank_sweep)):
        verdicts = {item.cell[0]: item.verdict for item in compared(sweep, "adapter.rank", "4")}
        assert (verdicts["full"], verdicts["none"], verdicts["1"]) == ("better", "worse", "worse")


def test_confounds_take_only_their_own_pairs_out_of_the_family(tmp_path: Path):
    trials = grid(range(5), (), rank=[1, 2, 4])
    for trial in trials:
        trial["training"]["steps"] = 500 if trial["adapter"]["rank"] == 4 else 100
    verdicts = {item.cell[0]: item for item in compared(simulated(tmp_path, trials), "adapter.rank", "1")}
    assert verdicts["4"].verdict == "refused"
    assert verdicts["2"].verdict == "better"
    assert verdicts["2"].p_holm == verdicts["2"].difference.p


def test_confounds_are_compared_at_equal_seeds(tmp_path: Path):
    trials = [changed(make_trial(s, rank=r), task_data={"length": 64 + s}) for s in range(5) for r in (1, 4)]
    [only] = compared(simulated(tmp_path, trials), "adapter.rank", "1")
    assert only.verdict == "better"  # the data follow from the seed in both cells


def test_alpha_that_is_a_multiple_of_rank_is_named_with_it(tmp_path: Path):
    trials = [make_trial(s, rank=r, alpha=2.0 * r) for s in range(5) for r in (1, 4)]
    table, verdict = printed(simulated(tmp_path, trials), "adapter.rank", "1")
    assert "- Cells differ in rank together with alpha (alpha = 2·rank)" in table
    assert "by adapter.rank, rank together with alpha (alpha = 2·rank), against 1" in verdict
    assert ": better" in verdict
    other = [make_trial(s, rank=r, alpha=a) for s in range(5) for r, a in ((1, 8.0), (2, 8.0), (4, 16.0))]
    verdicts = {item.cell[0]: item.verdict for item in compared(simulated(tmp_path / "b", other), "adapter.rank", "1")}
    assert verdicts == {"2": "better", "4": "refused"}


def test_tuning_budgets_that_are_unequal_are_said(tmp_path: Path):
    trials = [make_trial(s, rank=1, lr=lr) for s in range(5) for lr in (1e-4, 1e-3, 1e-2)]
    trials += [make_trial(s, rank=4) for s in range(5)]
    table, _ = printed(simulated(tmp_path, trials), "adapter.rank", "1")
    assert (
        "WARNING: tuning budgets are unequal: 4 was tried at 1 learning rate; 1 was tried at 3 learning rates." in table
    )


def test_environments_that_differ_are_a_warning_at_the_verdict(tmp_path: Path):
    def change(record: dict) -> dict:
        return {"environment": {"torch": "2.13.0" if record["trial"]["adapter"]["rank"] == 1 else "2.14.0"}}

    table, verdict = printed(
        simulated(tmp_path, [make_trial(s, rank=r) for s in range(5) for r in (1, 4)], change), "adapter.rank", "1"
    )
    assert "better (WARNING: trained on different torch (2.13.0, 2.14.0))" in verdict
    assert "WARNING: cells were trained on different torch (1: 2.13.0, 4: 2.14.0)" in table
    assert "**" in table


def test_bases_that_differ_leave_no_verdict_unless_the_base_was_asked(tmp_path: Path):
    def change(record: dict) -> dict:
        return {"environment": {"base": "aa" if record["trial"]["adapter"]["rank"] == 1 else "bb"}}

    trials = [
        changed(make_trial(s, rank=r), task_model="tiny" if r == 1 else "small") for s in range(5) for r in (1, 4)
    ]
    [only] = compared(simulated(tmp_path, trials, change), "adapter.rank", "1")
    assert sentence(only) == "no verdict: 1 and 4 also differ in task.model (tiny, small) and environment.base (aa, bb)"
    same_rank = [changed(make_trial(s, rank=4), task_model=m) for s in range(5) for m in ("tiny", "small")]
    sweep = simulated(tmp_path / "b", same_rank, lambda r: {"environment": {"base": r["trial"]["task"]["model"]}})
    assert compared(sweep, "task.model", "tiny")[0].verdict == "not distinguishable"


def test_seeds_that_are_not_shared_give_an_unpaired_interval(tmp_path: Path):
    from scipy import stats

    trials = [make_trial(s, rank=1) for s in range(4)] + [make_trial(s, rank=4) for s in range(4, 8)]
    sweep = simulated(tmp_path, trials)
    table, verdict = printed(sweep, "adapter.rank", "1")
    assert "the cells share no seed, so nothing is paired" in table
    values = [sweep.trials.loc[sweep.trials["adapter.rank"] == rank, "eval/loss"] for rank in (4, 1)]
    interval = stats.ttest_ind(*values, equal_var=False).confidence_interval()
    [only] = compared(sweep, "adapter.rank", "1")
    assert only.unpaired is not None
    assert (only.unpaired.low, only.unpaired.high) == pytest.approx((interval.low, interval.high))
    assert "the cells share no seed, so nothing is paired; unpaired difference −0." in verdict
    assert verdict.count("(Welch)") == 1
    assert questions(sweep)[0][0].factors == ("adapter.rank",)


def test_seeds_that_differ_put_the_paired_difference_beside_the_means(tmp_path: Path):
    trials = [make_trial(s, rank=1) for s in range(6)] + [make_trial(s, rank=4) for s in range(3)]
    sweep = simulated(
        tmp_path, trials, lambda r: {"result": {"eval/loss": r["trial"]["seed"] + r["trial"]["adapter"]["rank"] / 10}}
    )
    table, _ = printed(sweep, "adapter.rank", "1")
    assert "cells rest on different seeds (1: 6, 4: 3)" in table
    assert "4 − 1 is +0.3 at the 3 seeds of both" in table


def crossing(trial: Mapping[str, Any]) -> float:
    adapter = trial["adapter"]
    return 1.0 + (adapter["init"] == "pissa") * (-0.1 if adapter["rank"] == 1 else 0.1)


def test_interactions_turn_an_averaged_verdict_into_depends_on(tmp_path: Path):
    trials = grid(range(5), (), rank=[1, 8], init=["kaiming", "pissa"])
    sweep = simulated(tmp_path, trials, truth=crossing)
    means = sweep.trials.groupby(["adapter.rank", "adapter.init"])["eval/loss"].mean()
    low, high = (means[rank, "pissa"] - means[rank, "kaiming"] for rank in (1, 8))
    words = f"depends on rank: −{-low:.3g} at 1, +{high:.3g} at 8"
    table, verdict = printed(sweep, "adapter.init", "kaiming")
    assert f"- pissa against kaiming: {words}." in table
    assert "use --columns adapter.rank, or one level with --where adapter.rank=LEVEL" in table
    assert f": {words}" in verdict
    assert f"no verdict: pissa {words}" in found(sweep)


def test_interactions_leave_a_verdict_that_every_level_gives(tmp_path: Path):
    def truth(trial: Mapping[str, Any]) -> float:
        adapter = trial["adapter"]
        return 1.0 - (adapter["init"] == "pissa") * (0.2 if adapter["rank"] == 1 else 0.1)

    trials = grid(range(5), (), rank=[1, 8], init=["kaiming", "pissa"])
    [only] = compared(simulated(tmp_path, trials, truth=truth), "adapter.init", "kaiming")
    assert only.verdict == "better"
    assert sentence(only).startswith("better at every level, but depends on rank: −0.")


def test_interactions_are_contrasts_over_seeds_as_scipy_tests_them(tmp_path: Path):
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    from analysis.statistics.interactions import _contrasts

    trials = grid(range(5), (), rank=[1, 2, 8], init=["kaiming", "pissa", "olora"])
    sweep = simulated(tmp_path, trials, truth=crossing)
    observations = observe(sweep.trials, ("adapter.init",), "eval/loss")
    [one] = _contrasts(observations, "adapter.rank", [(("pissa",), ("kaiming",))])
    table = sweep.trials.pivot_table(index="adapter.rank", columns=["adapter.init", "seed"], values="eval/loss")
    difference = (table["pissa"] - table["kaiming"]).to_numpy()
    rest = [np.delete(difference, row, axis=0).mean(axis=0) for row in range(3)]
    expected = [stats.ttest_rel(difference[row], rest[row]).pvalue for row in range(3)]
    assert one.ps == pytest.approx(expected)
    assert min(multipletests(expected, method="holm")[1]) < 0.05


def diverging(trial: Mapping[str, Any]) -> bool:
    return trial["adapter"]["rank"] == 4 and trial["seed"] < 3


def test_diverged_seeds_take_the_plain_verdict_away(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(8) for r in (1, 4)]
    sweep = simulated(tmp_path, trials, diverge=diverging)
    table, verdict = printed(sweep, "adapter.rank", "1")
    assert "better where it converges; 3 of 8 diverged" in verdict
    assert "4 against 1: better where it converges; 3 of 8 diverged." in table
    assert "**" not in table
    assert "better where it converges: 4 (3 of 8 diverged)" in found(sweep)
    [reverse] = compared(sweep, "adapter.rank", "4")
    assert sentence(reverse) == "worse where the baseline converges; of the baseline 3 of 8 diverged"


def test_diverged_seeds_keep_a_verdict_that_holds_with_them_as_the_worst(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(20) for r in (1, 4)]
    lost = simulated(tmp_path, trials, diverge=lambda t: t["adapter"]["rank"] == 4 and t["seed"] == 0)
    [only] = compared(lost, "adapter.rank", "1")
    assert sentence(only) == "better; 1 of 20 diverged"
    [worse] = compared(
        simulated(tmp_path / "b", trials, diverge=lambda t: t["adapter"]["rank"] == 1 and t["seed"] < 3),
        "adapter.rank", "4",
    )  # fmt: skip
    assert sentence(worse) == "worse; 3 of 20 diverged"


def test_outlier_seed_is_named_and_each_cell_has_its_own_digits(tmp_path: Path):
    def result(record: dict) -> dict:
        trial = record["trial"]
        far = trial["adapter"]["rank"] == 4 and trial["seed"] == 2
        return {"result": {"eval/loss": 9.0 if far else 0.45 + trial["seed"] / 1000}}

    table, _ = printed(
        simulated(tmp_path, [make_trial(s, rank=r) for s in range(5) for r in (1, 4)], result), "adapter.rank", "1"
    )
    assert "far from the other seeds of its cell: 4, seed 2: 9.0" in table
    assert "0.4520 ± 0.0020" in table  # t(0.975, 4) · 0.00158 / √5 = 0.00196
    assert "2.2 ± 4.7" in table
    assert "± 0.0 " not in table


def test_outlier_is_none_among_normal_seeds(rank_sweep: Path):
    observations = observe(analysis.load(rank_sweep).trials, ("adapter.rank", "adapter.targets"), "eval/loss")
    assert "outlier" not in [note.kind for note in observations.notes]


def test_digits_of_tiny_and_huge_means_are_exponents():
    assert mean_and_half(7.0e-10, 1.2e-10) == "7.0e-10 ± 1.2e-10"
    assert mean_and_half(9.38e23, 4.67e24) == "9.4e23 ± 4.7e24"
    assert mean_and_half(1.3163, 0.0213) == "1.316 ± 0.021"
    assert mean_and_half(1234.6, 321.0) == "1235 ± 321"
    assert mean_and_half(1.5, 3e-12) == "1.50000000 ± 3.0e-12"


def test_cell_that_ended_worse_than_the_base_is_named(tmp_path: Path):
    trials = [make_trial(s, rank=4, lr=lr) for s in range(3) for lr in (1e-3, 1e12)]
    trials += [make_trial(s, kind="none") for s in range(3)]

    def truth(trial: Mapping[str, Any]) -> float:
        lost = trial["optimizer"]["lr"] > 1
        return (9.0 + 0.4 * trial["seed"]) * 1e23 if lost else 1.3 + (trial["adapter"]["kind"] == "none")

    sweep = simulated(tmp_path, trials, lambda r: {"result": {"eval/loss": truth(r["trial"]), "eval/base_loss": 2.3}})
    table = render(build(sweep, "optimizer.lr", None, "eval/loss"), "md")
    assert "| 1e12 |" in table
    assert "9.40e23 ± 9.9e22" in table  # t(0.975, 2) · 0.4e23 / √3
    assert "1.300 ± 0" in table
    assert "WARNING: this cell ended worse than the untouched base: 1e12." in table


def test_ratio_of_the_untouched_base_is_zero(rank_sweep: Path):
    table = render(build(analysis.load(rank_sweep), "adapter.rank", None, "params/trainable_ratio"), "md")
    [row] = [line for line in table.splitlines() if line.startswith("| none |")]
    assert row.endswith("| 0 (n=5) |")


def test_averages_are_not_over_a_factor_with_one_level_left(tmp_path: Path):
    trials = [make_trial(s, rank=1, init=i) for s in range(3) for i in ("kaiming", "pissa")]
    trials += [make_trial(s, rank=2, init="kaiming") for s in range(3)]
    table, _ = printed(simulated(tmp_path, trials), "adapter.rank", "1")
    assert "levels)" not in table
    assert "(1 level)" not in table
    assert "Left out: 3 values at adapter.init that not every cell has" in table


def timed(record: dict) -> dict:
    """Rank 4 trained in packs of 1, the others in packs of 15; alone it is the slowest, by more than the noise."""
    small, seed = record["trial"]["adapter"]["rank"] == 4, record["trial"]["seed"]
    of_pack = (
        {"pack_size": 1, "step_ms": 14.1 + seed / 100} if small else {"pack_size": 15, "step_ms": 78.2 + seed / 100}
    )
    alone_ms = 14.1 + seed % 2 / 50 if small else 12.0
    return {"perf": record["perf"] | of_pack | {"alone_step_ms": alone_ms + seed / 100}}


@pytest.mark.parametrize("metric", ["perf/step_ms", "perf/samples_per_second", "perf/peak_memory_mb"])
def test_figures_of_packs_are_shown_and_never_tested(metric: str, tmp_path: Path):
    sweep = simulated(tmp_path, grid(range(5), (), rank=[1, 2, 4]), timed)
    instead = metric.replace("perf/", "perf/alone_")
    refusal = f"{metric} describes the packs in which trials trained, so no trials are compared by it"
    with pytest.raises(BadRequestError, match=re.escape(f"{refusal}; use --metric {instead}")):
        compared(sweep, "adapter.rank", "1", metric)
    table = render(build(sweep, "adapter.rank", None, metric), "md")
    assert "WARNING: this describes the packs of 1, 15 trials" in table
    assert f"compare those by {instead}" in table
    assert "of its pack" in table
    assert "**" not in table


def test_speeds_alone_are_compared_whatever_the_packs(tmp_path: Path):
    sweep = simulated(tmp_path, grid(range(5), (), rank=[1, 2, 4]), timed)
    verdicts = {item.cell[0]: item.verdict for item in compared(sweep, "adapter.rank", "1", "perf/alone_step_ms")}
    assert verdicts == {"2": "no variation", "4": "worse"}


def test_figures_of_packs_in_older_records_are_not_compared(tmp_path: Path):
    declared = {"perf/step_ms": {"label": "step time", "unit": "ms", "better": "lower", "kind": "end"}}
    sweep = simulated(tmp_path, grid(range(3), (), rank=[1, 2]), lambda record: {"metrics": declared})
    assert "perf/step_ms" not in {metric for question in questions(sweep)[0] for metric in question.secondary}
    with pytest.raises(BadRequestError, match="no trials are compared by it"):
        compared(sweep, "adapter.rank", "1", "perf/step_ms")


def test_shares_of_variance_add_up_where_trials_were_lost(tmp_path: Path):
    trials = grid(range(3), (), rank=[1, 2, 4], lr=[1e-3, 1e-2])
    lost = simulated(
        tmp_path, trials, diverge=lambda t: t["optimizer"]["lr"] == 1e-2 and t["adapter"]["rank"] == 4 and t["seed"] < 2
    )
    explained = effects(lost.trials, "eval/loss")
    assert sum(effect.share for effect in explained.effects) <= 1
    assert [note.kind for note in explained.notes] == ["effects without a value", "unbalanced"]


def test_bold_needs_a_plain_verdict_against_every_cell(tmp_path: Path):
    trials = [make_trial(s, rank=r) for s in range(8) for r in (1, 4)]
    observations = observe(simulated(tmp_path, trials, diverge=diverging).trials, ("adapter.rank",), "eval/loss")
    assert first(ranking(observations, observations.filled)) is None
