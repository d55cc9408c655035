from pathlib import Path

import numpy as np
import pytest
from simulate import make_trial, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.statistics.cells import at_chosen_rates, observe
from analysis.statistics.levels import labels, level_text, ordered, select, swept
from analysis.statistics.notes import info, warning


def load(place: Path, trials: list[dict], **given: object) -> analysis.Sweep:
    return analysis.load(write_sweep(place / "sweep", trials, np.random.default_rng(3), **given))


def test_levels_have_their_text_and_order():
    assert [level_text(v) for v in (8.0, 1e-5, 0.001, None, float("nan"), "q+v")] == [
        "8",
        "1e-5",
        "0.001",
        "unset",
        "unset",
        "q+v",
    ]
    assert ordered(["none", "16", "full", "2", "b", "a", "2"]) == ["2", "16", "a", "b", "full", "none"]


def test_labels_of_references_are_their_kind_under_every_adapter_factor(rank_sweep: Path):
    trials = analysis.load(rank_sweep).trials
    assert set(labels(trials, "adapter.rank")) == {"1", "2", "4", "full", "none"}
    assert set(labels(trials, "adapter.init")) == {"kaiming", "pissa", "full", "none"}
    assert set(labels(trials, "optimizer.lr")) == {"0.001", "none"}


def test_swept_factors_leave_out_followers(tmp_path: Path):
    trials = [
        make_trial(seed, rank=rank, alpha=2.0 * rank, init=init)
        for seed in range(2)
        for rank in (1, 2)
        for init in ("kaiming", "pissa")
    ]
    assert swept(load(tmp_path, trials).trials) == ["adapter.rank", "adapter.init"]


def test_observe_averages_over_a_hidden_factor_by_hand(tmp_path: Path):
    trials = [make_trial(seed, rank=2, init=i) for seed in (0, 1) for i in ("kaiming", "pissa")]
    sweep = load(tmp_path, trials)
    values = sweep.trials["eval/loss"].to_numpy()
    seen = observe(sweep.trials, ("adapter.rank",), "eval/loss")
    assert seen.cell(("2",))["0"] == pytest.approx(values[:2].mean())
    assert seen.cell(("2",))["1"] == pytest.approx(values[2:].mean())
    assert info("averaged", over=[("adapter.init", 2)]) in seen.notes


def test_observe_averages_over_shared_combinations_only(tmp_path: Path):
    trials = [make_trial(s, rank=1, init=i) for s in range(3) for i in ("kaiming", "pissa")]
    trials += [make_trial(s, rank=2, init="kaiming") for s in range(3)]
    sweep = load(tmp_path, trials)
    seen = observe(sweep.trials, ("adapter.rank",), "eval/loss")
    kaiming = sweep.trials[(sweep.trials["adapter.init"] == "kaiming") & (sweep.trials["adapter.rank"] == 1)]
    assert sorted(seen.cell(("1",))) == pytest.approx(sorted(kaiming["eval/loss"]))
    assert info("combinations left out", values=3, factors=["adapter.init"]) in seen.notes


def test_observe_averages_no_kind_with_another_that_some_cell_lacks(tmp_path: Path):
    trials = [make_trial(s, kind=kind) for kind in ("full", "full", "none") for s in range(3)]
    for place, trial in enumerate(trials):
        trial["task"] = trial["task"] | {"context": 16 if 3 <= place < 6 else 8}  # the untouched base at 8 alone
    sweep = load(tmp_path, trials)
    seen = observe(sweep.trials, ("task.context",), "eval/loss")
    full = sweep.trials[(sweep.trials["adapter.kind"] == "full") & (sweep.trials["task.context"] == 8)]
    assert sorted(seen.cell(("8",))) == pytest.approx(sorted(full["eval/loss"]))


def test_observe_refuses_cells_that_share_nothing(tmp_path: Path):
    trials = [make_trial(s, rank=1, init=i) for s in range(2) for i in ("kaiming", "pissa")]
    trials += [make_trial(s, rank=2, init=i) for s in range(2) for i in ("olora", "gaussian")]
    with pytest.raises(BadRequestError, match=r"share no combination of adapter\.init"):
        observe(load(tmp_path, trials).trials, ("adapter.rank",), "eval/loss")


def test_observe_leaves_out_a_seed_that_lost_a_trial(tmp_path: Path):
    trials = [make_trial(s, rank=2, init=i) for s in range(4) for i in ("kaiming", "pissa")]
    sweep = load(tmp_path, trials, diverge=lambda t: t["seed"] == 2 and t["adapter"]["init"] == "pissa")
    seen = observe(sweep.trials, ("adapter.rank",), "eval/loss")
    assert sorted(seen.cell(("2",)).index) == ["0", "1", "3"]
    assert info("seeds left out", seeds=1) in seen.notes
    assert info("lost", diverged=1, failed=0, trials=8) in seen.notes


def test_observe_leaves_out_a_pruned_trial_and_its_replicates(tmp_path: Path):
    trials = [make_trial(s, rank=r, lr=lr) for s in range(4) for r in (1, 2) for lr in (1e-3, 1e-2)]
    sweep = load(tmp_path, trials)
    frame = sweep.trials.copy()
    lost = (frame["adapter.rank"] == 2) & (frame["optimizer.lr"] == 1e-3)
    frame.loc[lost & frame["seed"].isin([0, 1]), "status"] = "pruned"
    frame.loc[lost & (frame["seed"] == 0), "eval/loss"] = -100.0  # as far as it came before it was stopped
    seen = observe(frame, ("adapter.rank", "optimizer.lr"), "eval/loss")
    assert seen.counts.loc[("2", "0.001"), ["trials", "finished", "pruned", "n"]].tolist() == [4, 2, 2, 0]
    assert seen.counts["n"].tolist() == [4, 4, 0, 4]
    assert info("pruned", trials=2) in seen.notes
    tuned = observe(frame, ("adapter.rank",), "eval/loss")
    assert tuned.rates == {("1",): "0.001", ("2",): "0.01"}
    assert tuned.cell(("2",)).min() > 0


def test_observe_refuses_mixed_tasks_unless_separated(tmp_path: Path):
    trials = [make_trial(s, task=t, rank=2) for s in range(3) for t in ("mnist", "transformer")]
    sweep = load(tmp_path, trials)
    with pytest.raises(BadRequestError, match="mix the tasks mnist, transformer"):
        observe(sweep.trials, ("adapter.rank",), "eval/loss")
    assert len(observe(sweep.trials, ("task.name",), "eval/loss").filled) == 2
    only = select(sweep.trials, {"task.name": ["mnist"]})
    assert observe(only, ("adapter.rank",), "eval/loss").counts["n"].tolist() == [3]


def test_observe_warns_of_a_single_learning_rate_and_not_of_tuned_ones(rank_sweep: Path, tuned_sweep: Path):
    single = observe(analysis.load(rank_sweep).trials, ("adapter.rank",), "eval/loss")
    assert warning("not tuned", rates=["0.001"]) in single.notes
    tuned = observe(analysis.load(tuned_sweep).trials, ("adapter.rank",), "eval/loss")
    assert [note.kind for note in tuned.notes] == ["tuned", "lost", "seeds only"]
    assert tuned.rates[("1",)] == "0.001"
    assert tuned.counts.loc[("1",), ["trials", "diverged", "n"]].tolist() == [15, 1, 5]


def test_observe_reports_forgetting_at_the_rate_that_suits_the_target(tuned_sweep: Path):
    trials = analysis.load(tuned_sweep).trials
    kept = observe(trials, ("adapter.rank",), "eval/source_loss")
    target = observe(trials, ("adapter.rank",), "eval/loss")
    assert kept.rates == target.rates
    assert info("tuned", by="eval/loss", rate="0.001") in kept.notes


def test_curves_use_the_trials_at_the_chosen_rate(tuned_sweep: Path):
    trials = analysis.load(tuned_sweep).trials
    chosen = at_chosen_rates(trials, observe(trials, ("adapter.rank",), "eval/loss"))
    assert set(chosen["optimizer.lr"]) == {0.001}


def test_observe_suggests_the_nearest_name(rank_sweep: Path):
    trials = analysis.load(rank_sweep).trials
    with pytest.raises(BadRequestError, match="did you mean eval/loss"):
        observe(trials, ("adapter.rank",), "eval/los")
    with pytest.raises(BadRequestError, match=r"did you mean adapter\.rank"):
        observe(trials, ("adapter.rnk",), "eval/loss")
    with pytest.raises(BadRequestError, match=r"unknown level of adapter\.init 'kaimin'"):
        select(trials, {"adapter.init": ["kaimin"]})


def test_observe_leaves_out_references_that_no_factor_separates(rank_sweep: Path):
    seen = observe(analysis.load(rank_sweep).trials, ("optimizer.lr",), "eval/loss")
    assert info("references left out", trials=10, kinds=["full", "none"]) in seen.notes
    assert seen.counts["trials"].tolist() == [60]
