"""Which trials train together, by what they share, what fits and what gains."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sweep.engines.local import LocalEngine
from sweep.engines.options import LaunchOptions
from sweep.launch import packing
from sweep.launch.cost import trainable_of
from sweep.launch.packing import LONG_UPDATE_S, into_packs
from sweep.launch.plan import Plan, describe, make_plan, skipped
from sweep.packs.pack import Pack
from sweep.record import Record, write
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from sweep.tasks.task import Task
from tests.support.commands import resolved

GIB = 2**30


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Pretend measurements: a fixed time for an update and some for each trial, and a large memory."""
    figures = {"fixed_s": 0.4, "trial_s": 0.0004, "memory": 64 * GIB}
    monkeypatch.setattr(packing, "update_s", lambda group, task: figures["fixed_s"] + figures["trial_s"] * len(group))
    monkeypatch.setattr(packing, "available_memory", lambda device: figures["memory"])
    return figures


def sizes(packs: list[Pack]) -> list[int]:
    return sorted(len(one.trials) for one in packs)


def seeds(count: int, *overrides: str) -> list[str]:
    return [" ".join((f"seed={seed}", *overrides)) for seed in range(count)]


def planned(each: list[str], cache: Path, max_pack: int = 256, workers: int = 1) -> list[Pack]:
    wanted = resolved(*each, cache=cache)
    packs = into_packs(wanted, max_pack, workers)
    assert sorted(id(trial) for one in packs for trial in one.trials) == sorted(map(id, wanted))  # each exactly once
    return packs


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("", "optimizer.lr=0.5", True),
        (
            "",
            "optimizer.weight_decay=0.1 optimizer.clip_norm=1 optimizer.schedule=cosine optimizer.warmup_steps=3",
            True,
        ),
        ("", "adapter.alpha=1", True),
        ("", "adapter.init=pissa", True),
        ("adapter.init=eva", "adapter.init=mica", True),
        ("", "adapter.scaling=alpha", True),
        ("", "adapter.targets=mlp", True),
        ("", "optimizer.lr_ratio=16", True),
        ("adapter.rank=4", "adapter.rank=2 adapter.rank_pattern={layers.0:3}", True),
        ("adapter.rank=4", "adapter.rank=4 adapter.rank_pattern={layers.0:9}", False),
        ("", "adapter.dora=true", False),
        ("task.hidden=[16] adapter.save=[layers.1]", "task.hidden=[16] adapter.save=[layers.1] seed=1", False),
        ("adapter.rank=5", "adapter.rank=8", True),
        ("adapter.rank=4", "adapter.rank=8", False),
        ("", "adapter.bias=all", False),
        ("", "adapter.dropout=0.1", False),
        ("adapter.dropout=0.2", "adapter.dropout=0.1", True),
        ("", "optimizer=sgd", False),
        ("", "optimizer.betas=[0.8,0.9]", False),
        ("", "training.steps=21", False),
        ("", "training.batch_size=16", False),
        ("", "task.noise=0.3", False),
        ("", "adapter=full", False),
        ("", "adapter=none", False),
        ("adapter=full", "adapter=full seed=1", False),
        ("adapter=none", "adapter=none seed=1", True),
    ],
)
def test_into_packs_puts_together_what_trains_together(first: str, second: str, together: bool, tmp_path: Path) -> None:
    assert len(planned([first, second], tmp_path)) == (1 if together else 2)


def test_into_packs_makes_no_pack_above_the_limit(tmp_path: Path) -> None:
    assert sizes(planned(seeds(10), tmp_path, max_pack=4)) == [3, 3, 4]


def test_into_packs_plans_the_rest_of_a_pruned_sweep_as_before(tmp_path: Path) -> None:
    packs = planned(seeds(33, "pruning=2"), tmp_path, max_pack=8, workers=2)
    assert sizes(packs) == [1, 8, 8, 8, 8]
    for done in packs:
        left = [pack for pack in packs if pack is not done]
        wanted = sorted((trial for pack in left for trial in pack.trials), key=lambda trial: trial.seed)
        assert {pack.trials for pack in into_packs(wanted, 8, 2)} == {pack.trials for pack in left}


def test_into_packs_fits_the_memory_of_all_workers_together(tmp_path: Path, measured: dict[str, float]) -> None:
    [whole] = planned(seeds(8), tmp_path)
    each = whole.memory_bytes // 8
    for workers, memory, expected in ((1, 4 * each, [2, 2, 2, 2]), (2, 8 * each, [2, 2, 2, 2]), (1, 0, [1] * 8)):
        measured["memory"] = memory
        assert sizes(planned(seeds(8), tmp_path, workers=workers)) == expected


def test_into_packs_keeps_a_pack_small_that_gains_nothing(tmp_path: Path, measured: dict[str, float]) -> None:
    measured.update(fixed_s=0.0, trial_s=0.1)
    assert sizes(planned(seeds(6), tmp_path)) == [1] * 6
    measured.update(fixed_s=0.3, trial_s=0.1)  # 0.4 s alone, 0.175 s each of four, 0.15 s of six: a tenth and more
    assert sizes(planned(seeds(6), tmp_path)) == [6]
    measured.update(fixed_s=0.1, trial_s=0.1)  # 0.2 s alone, 0.125 s each of four, 0.117 s of six
    assert sizes(planned(seeds(6), tmp_path)) == [3, 3]


def test_into_packs_does_not_try_again_at_another_rank_what_gained_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr(packing, "update_s", lambda group, task: tried.append(len(group)) or 0.1 * len(group))
    assert sizes(planned([*seeds(6), *seeds(6, "adapter.rank=2")], tmp_path)) == [1] * 12
    assert tried == [1, 4, 1]


def test_into_packs_looks_for_no_gain_in_long_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(packing, "update_s", lambda group, task: tried.append(len(group)) or LONG_UPDATE_S)
    assert sizes(planned(seeds(6), tmp_path)) == [1] * 6
    assert tried == [1]


def test_into_packs_spreads_long_work_over_the_workers(tmp_path: Path, measured: dict[str, float]) -> None:
    assert sizes(planned(seeds(8), tmp_path, workers=2)) == [4, 4]
    measured.update(fixed_s=1e-6, trial_s=0.0)
    assert sizes(planned(seeds(8), tmp_path, workers=2)) == [8]


def test_into_packs_puts_the_longest_pack_first(tmp_path: Path) -> None:
    each = [*seeds(2, "training.steps=10"), *seeds(2, "training.steps=30"), *seeds(2, "adapter=none")]
    packs = planned(each, tmp_path)
    assert [one.trials[0].adapter.kind for one in packs] == ["lora", "lora", "none"]
    assert [one.seconds for one in packs] == pytest.approx([30 * 0.4008, 10 * 0.4008, 0.0])


def test_pack_halves_have_all_trials_once(tmp_path: Path) -> None:
    [whole] = planned(seeds(5), tmp_path)
    first, second = whole.halves()
    assert first.trials + second.trials == whole.trials
    assert abs(len(first.trials) - len(second.trials)) == 1


@pytest.mark.parametrize(
    ("overrides", "numbers"),
    [
        ("adapter.rank=4", 4 * (64 + 16) + 4 * (16 + 10)),
        ("adapter.rank=4 adapter.targets=[layers.1]", 4 * (16 + 10)),
        ("adapter.rank=4 adapter.save=[layers.1] adapter.bias=all", 4 * (64 + 16) + 16 + 16 * 10 + 10),
        ("adapter.rank=4 adapter.init=mica", 4 * 64 + 4 * 16),
        ("adapter.rank=4 adapter.dora=true", 4 * (64 + 16) + 16 + 4 * (16 + 10) + 10),
        ("adapter.rank=4 adapter.rank_pattern={layers.1:2}", 4 * (64 + 16) + 2 * (16 + 10)),
        ("adapter.rank=4 adapter.bias=all", 4 * (64 + 16) + 4 * (16 + 10) + 16 + 10),
        ("adapter.rank=4 adapter.bias=lora_only adapter.targets=[layers.0]", 4 * (64 + 16) + 16),
        ("adapter=full", 64 * 16 + 16 + 16 * 10 + 10),
    ],
)
def test_cost_counts_trained_numbers_without_training(overrides: str, numbers: int, tmp_path: Path) -> None:
    [one] = resolved(f"task.hidden=[16] {overrides}", cache=tmp_path)
    assert trainable_of(one) == numbers


def test_plan_leaves_out_what_is_finished_and_what_is_twice(tmp_path: Path) -> None:
    one, two, again, three = resolved("seed=1", "seed=2", "seed=1 name=other", "seed=3", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    finish(store, two, "finished")
    finish(store, three, "failed")
    whole = make_plan([one, two, again, three], store, LaunchOptions(workers=1))
    assert list(whole.records) == [two.id]
    assert {trial.id for pack in whole.packs for trial in pack.trials} == {one.id, three.id}
    first, *rest = describe(whole, [one, two, again, three]).splitlines()
    assert first == "4 trials: 1 exact duplicate dropped, 1 already finished, 2 to train"
    assert rest[0].startswith("    1 ×   2 trials of toy_regression (lora), 20 steps, training 592 numbers each")


def finish(store: Store, trial: ResolvedTrial, status: str) -> None:
    folder = store.trial_folder(trial)
    folder.mkdir(parents=True)
    result, error = ({"eval/loss": 0.5}, None) if status == "finished" else ({}, {"type": "OSError", "message": "disk"})
    write(Record(trial.id, "n", status, trial=trial.science(), result=result, error=error), folder)  # type: ignore[arg-type]
    (folder / "history.jsonl").write_text('{"step": 20}\n')


def test_plan_seconds_are_shared_by_the_workers(tmp_path: Path) -> None:
    packs, engine = planned(seeds(4), tmp_path, max_pack=2), LocalEngine(LaunchOptions())
    assert Plan([], packs, 2, engine).seconds == pytest.approx(20 * (2 * 0.4008) / 2)
    assert math.isnan(Plan([], planned(["seed=0"], tmp_path), 1, engine).seconds)


@pytest.mark.parametrize(("wanted", "packs", "expected"), [(None, 256, 1), (1, 2, 1), (2, 2, 2), (8, 2, 2)])
def test_plan_has_workers_for_the_work_and_the_cores(
    wanted: int | None, packs: int, expected: int, tmp_path: Path, measured: dict[str, float]
) -> None:
    measured.update(fixed_s=1e-6)
    chosen = make_plan(
        resolved(*seeds(4), cache=tmp_path), Store(tmp_path, None), LaunchOptions(max_pack=packs, workers=wanted)
    )
    assert chosen.workers == expected


def test_plan_has_one_process_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ``device=auto`` finds it."""
    waiting = resolved(*seeds(4), cache=tmp_path)
    monkeypatch.setattr("sweep.engines.local.device_of", lambda name: torch.device("cuda"))
    assert make_plan(waiting, Store(tmp_path, None), LaunchOptions(max_pack=1)).workers == 1


def test_plan_names_every_reason_to_skip_a_trial(tmp_path: Path) -> None:
    common = ("adapter=full", "adapter=full adapter.kind=full", *seeds(5))
    trials = resolved(*common, cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    for trial, status in zip(trials[2:], ("finished", "finished", "finished", "finished", "failed"), strict=True):
        finish(store, trial, status)
    plan = make_plan(trials, store, LaunchOptions(workers=1, retry_failed=False))
    labels = [trial.label for trial in trials]
    assert list(skipped(plan)) == [
        f"  exact duplicate: {labels[0]}",
        f"  already finished: {', '.join(labels[2:5])} and 1 more",
        f"  failed before: {labels[6]} (OSError: disk)",
    ]
    assert f"  already finished: {', '.join(labels[2:6])}" in describe(plan, trials).splitlines()


def test_plan_names_what_kept_a_pack_from_being_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trials: Sequence[ResolvedTrial], task: Task) -> float:
        raise TypeError("a mistake in the code")

    def too_large(trials: Sequence[ResolvedTrial], task: Task) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trials = resolved(*seeds(2), cache=tmp_path)
    monkeypatch.setattr(packing, "update_s", broken)
    plan = make_plan(trials, Store(tmp_path / "sweep", None), LaunchOptions(workers=1))
    assert plan.unmeasured == [f"{trials[0].label}: TypeError: a mistake in the code"]
    assert f"  not measured: {plan.unmeasured[0]}" in describe(plan, trials).splitlines()
    monkeypatch.setattr(packing, "update_s", too_large)
    assert make_plan(trials, Store(tmp_path / "sweep", None), LaunchOptions(workers=1)).unmeasured == []
