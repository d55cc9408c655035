"""One launch: every trial gets its record, and what happens to one happens to no other."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep import record
from sweep.engines.local import LocalEngine
from sweep.engines.options import LaunchOptions
from sweep.launch import cost
from sweep.launch.launch import TooManyFailuresError, run
from sweep.launch.plan import make_plan, summary
from sweep.packs import base, rows, run_pack, train_pack
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store, UnwritableError
from sweep.trackers.local import LocalTracker
from tests.support.commands import history, records, resolved, untimed

ALONE = LaunchOptions(max_pack=1, workers=1)
TOGETHER = LaunchOptions(workers=1)
MIXED = [
    *(f"seed={seed} optimizer.lr={lr}" for seed in (0, 1, 2) for lr in (0.01, 0.02)),
    "adapter.rank=2 adapter.init=pissa",
    "adapter=full",
    "adapter=none",
]


def results(found: Sequence[Record]) -> list[dict[str, Any]]:
    return [untimed(one) for one in found]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[ResolvedTrial]], list[dict[str, Any]]]:
    """What trials leave when each is trained on its own; each distinct trial is trained once."""
    store = Store(tmp_path_factory.mktemp("alone"), None)
    return lambda wanted: results(run(wanted, store, ALONE))


def test_launch_gives_records_in_the_order_of_the_trials(
    tmp_path: Path, alone: Callable[[list[ResolvedTrial]], list[dict[str, Any]]]
) -> None:
    wanted = resolved(*MIXED, cache=tmp_path)
    found = run(wanted, Store(tmp_path / "sweep", None), TOGETHER)
    assert [one.trial_id for one in found] == [trial.id for trial in wanted]
    assert results(found) == alone(wanted)
    assert [one.perf["pack_size"] for one in found] == [6, 6, 6, 6, 6, 6, 1, 1, 1]
    assert {name: untimed(one) for name, one in records(tmp_path / "sweep").items()} == {
        trial.label: untimed(one) for trial, one in zip(wanted, found, strict=True)
    }


def test_launch_does_not_train_again_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = resolved("seed=0", "seed=1", "seed=0", "seed=2", cache=tmp_path)
    trained: list[int] = []
    own = train_pack.run_pack

    def watched(pack: Sequence[ResolvedTrial], *rest: Any) -> Any:
        trained.extend(trial.seed for trial in pack)
        return own(pack, *rest)

    monkeypatch.setattr(train_pack, "run_pack", watched)
    store = Store(tmp_path / "sweep", None)
    first = run(wanted, store, TOGETHER)
    assert sorted(trained) == [0, 1, 2]
    assert run(wanted, store, TOGETHER) == first
    assert sorted(trained) == [0, 1, 2]
    (store.trial_folder(wanted[1]) / "record.json").unlink()
    again = run(wanted, store, TOGETHER)
    assert trained[3:] == [1]
    assert results(again) == results(first)


class BoomError(Exception):
    """Something that nobody has thought of."""


def test_launch_fails_a_trial_that_raises_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Callable[[list[ResolvedTrial]], list[dict[str, Any]]]
) -> None:
    wanted = resolved(*(f"seed={seed}" for seed in range(5)), cache=tmp_path)
    healthy = alone(wanted)
    own = run_pack.train

    def breaks_on_seed_3(*arguments: Any, **more: Any) -> Any:
        seeds = next(part for part in arguments if isinstance(part, list) and all(isinstance(x, int) for x in part))
        if 3 in seeds:
            raise BoomError("seed 3 is unlucky")
        return own(*arguments, **more)

    monkeypatch.setattr(run_pack, "train", breaks_on_seed_3)
    store = Store(tmp_path / "sweep", None)
    found = run(wanted, store, TOGETHER)
    assert [one.status for one in found] == ["finished", "finished", "finished", "failed", "finished"]
    assert [untimed(one) for one in found if one.finished] == [healthy[n] for n in (0, 1, 2, 4)]
    error = found[3].error
    assert error is not None
    assert (error["type"], error["message"]) == ("BoomError", "seed 3 is unlucky")
    assert "breaks_on_seed_3" in error["traceback"]
    assert found[3].result == {}
    assert record.read(store.trial_folder(wanted[3])) == found[3]
    assert "failed: BoomError: seed 3 is unlucky" in (store.trial_folder(wanted[3]) / "trial.log").read_text()
    monkeypatch.undo()
    assert results(run(wanted, store, TOGETHER)) == healthy


def test_launch_ends_a_diverged_trial_alone_and_keeps_its_history(
    tmp_path: Path, alone: Callable[[list[ResolvedTrial]], list[dict[str, Any]]]
) -> None:
    wanted = resolved(*(f"optimizer.lr={lr} training.log_every=1" for lr in ("1e-2", "1e30", "2e-2")), cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    found = run(wanted, store, TOGETHER)
    assert [one.status for one in found] == ["finished", "diverged", "finished"]
    assert results(found) == alone(wanted)
    lost = found[1]
    assert lost.perf["pack_size"] == 3
    assert lost.result == {}
    assert lost.error is not None
    assert lost.error["message"] == "the loss was NaN or infinite at step 2"
    rows = history(store.trial_folder(wanted[1]))
    assert [row["step"] for row in rows] == [0, 1]
    assert all(isinstance(value, int | float) for row in rows for value in row.values())
    assert len(history(store.trial_folder(wanted[0]))) == 21


def test_launch_halves_a_pack_that_is_too_large_once_its_memory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Callable[[list[ResolvedTrial]], list[dict[str, Any]]]
) -> None:
    wanted = resolved(*(f"seed={seed}" for seed in range(7)), cache=tmp_path)
    healthy = alone(wanted)
    own, tried, held = train_pack.run_pack, [], []

    def small_memory(pack: Sequence[ResolvedTrial], *rest: Any) -> Any:
        assert not [tensor for tensor in held if tensor() is not None], "the last attempt still holds its memory"
        tried.append(len(pack))
        if len(pack) > 2:
            activations = torch.zeros(1000)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(pack, *rest)

    monkeypatch.setattr(train_pack, "run_pack", small_memory)
    gc.disable()
    try:
        found = run(wanted, Store(tmp_path / "sweep", None), TOGETHER)
    finally:
        gc.enable()
    assert tried == [7, 3, 1, 2, 4, 2, 2]
    assert [one.perf["pack_size"] for one in found] == [1, 2, 2, 2, 2, 2, 2]
    assert results(found) == healthy


def test_launch_fails_a_trial_that_is_too_large_alone_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train_pack, "run_pack", no_memory)
    found = run(resolved("seed=0", "seed=1", cache=tmp_path), Store(tmp_path / "sweep", None), TOGETHER)
    assert [one.status for one in found] == ["failed", "failed"]
    assert {one.error["type"] for one in found if one.error} == {"OutOfMemoryError"}


@pytest.mark.parametrize(("kind", "file"), [("lora", "adapter_model.safetensors"), ("full", "model.safetensors")])
def test_launch_keeps_the_adapter_on_request(kind: str, file: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    store = Store(tmp_path / "sweep", None)
    wanted = resolved(
        *(f"adapter={kind} adapter.rank={rank} seed={seed} save_adapter=true" for rank in (2, 3) for seed in (0, 1)),
        cache=tmp_path,
    )
    found = run(wanted, store, TOGETHER)
    for trial, one in zip(wanted, found, strict=True):
        tensors = load_file(store.trial_folder(trial) / "adapter" / file)
        assert sum(tensor.numel() for tensor in tensors.values()) == one.params["trainable"]


def test_launch_starts_a_trial_where_its_adapter_ended(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep", None)
    wanted = resolved(
        "adapter.rank=2 seed=0 save_adapter=true", "adapter.rank=2 seed=1 save_adapter=true", cache=tmp_path
    )
    ended = run(wanted, store, TOGETHER)
    folders = [store.trial_folder(trial) / "adapter" for trial in wanted]
    further = resolved(*(f"adapter=peft adapter.peft={folder} seed=3" for folder in folders), cache=tmp_path)
    together, alone = run(further, store, TOGETHER), run(further, Store(tmp_path / "alone", None), ALONE)
    assert results(together) == results(alone)
    for before, after, trial in zip(ended, together, further, strict=True):
        assert after.perf["pack_size"] == 2
        first = history(store.trial_folder(trial))[0]
        assert first["eval/loss"] == pytest.approx(before.result["eval/loss"], rel=1e-6)
        assert after.result["train/loss"] != before.result["train/loss"]
        assert after.trial["adapter"] | {"peft": None, "init": "kaiming"} == before.trial["adapter"] | {
            "targets": ["layers.0"]
        }
    assert together[0].trial_id != together[1].trial_id


def test_launch_of_a_lora_config_is_the_trial_of_its_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"r": 2, "lora_alpha": 16, "target_modules": "all-linear"}')
    file, keys = resolved(f"adapter=peft adapter.peft={tmp_path}/config.json", "adapter.rank=2", cache=tmp_path)
    assert replace(file, config=keys.config) == keys
    assert file.id == keys.id


def test_launch_without_a_tracker_has_no_mirror(tmp_path: Path) -> None:
    run(resolved("seed=0", cache=tmp_path), Store(tmp_path / "sweep", None), TOGETHER)
    assert not (tmp_path / "sweep" / "wandb").exists()


def failing(monkeypatch: pytest.MonkeyPatch, *unlucky: int) -> list[int]:
    """Make the trials with these seeds raise; the list tells which seeds were trained, in order."""
    own, trained = train_pack.run_pack, []

    def watched(pack: Sequence[ResolvedTrial], *rest: Any) -> Any:
        trained.extend(trial.seed for trial in pack)
        if any(trial.seed in unlucky for trial in pack):
            raise BoomError("unlucky")
        return own(pack, *rest)

    monkeypatch.setattr(train_pack, "run_pack", watched)
    return trained


def test_launch_stops_a_hopeless_sweep_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = resolved(*(f"seed={seed}" for seed in range(6)), cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    trained = failing(monkeypatch, 0, 2, 3)
    with pytest.raises(
        TooManyFailuresError, match="stopped: 2 trials failed, and max_failures=1; the last error was: unlucky"
    ):
        run(wanted, store, replace(ALONE, max_failures=1))
    assert trained == [0, 1, 2]
    assert [one.status for one in records(store.folder).values()] == ["failed", "finished", "failed"]
    monkeypatch.undo()
    found = run(wanted, store, replace(ALONE, max_failures=0))
    assert all(one.finished for one in found)


def test_launch_leaves_failed_trials_alone_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = resolved("seed=0", "seed=1", "optimizer.lr=1e30", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    failing(monkeypatch, 1)
    first = run(wanted, store, ALONE)
    assert [one.status for one in first] == ["finished", "failed", "diverged"]
    monkeypatch.undo()
    trained = failing(monkeypatch)
    assert run(wanted, store, replace(ALONE, retry_failed=False)) == first
    assert summary(make_plan(wanted, store, replace(ALONE, retry_failed=False)), wanted) == (
        "3 trials: 0 exact duplicates dropped, 1 already finished, 2 that failed left alone, 0 to train"
    )
    assert trained == []
    assert [one.status for one in run(wanted, store, ALONE)] == ["finished", "finished", "diverged"]
    assert trained == [1, 0]


def test_launch_whose_base_cannot_be_trained_fails_only_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = resolved("seed=0", "task=transformer_tiny seed=0", "task=transformer_tiny seed=1", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)

    def broken(*arguments: Any) -> Any:
        raise BoomError("the base cannot be trained")

    monkeypatch.setattr(base, "_trained", broken)
    found = run(wanted, store, TOGETHER)
    assert [one.status for one in found] == ["finished", "failed", "failed"]
    for one in found[1:]:
        assert one.error is not None
        assert (one.error["type"], one.error["message"]) == ("BoomError", "the base cannot be trained")
    assert len(records(store.folder)) == 3


@pytest.mark.parametrize("moment", ["while it trains", "at its end"])
def test_launch_ends_at_a_full_disk_and_blames_no_trial(
    moment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: Callable[[list[ResolvedTrial]], list[dict[str, Any]]],
) -> None:
    wanted = resolved("seed=0", "seed=1", "seed=2", "adapter.rank=2", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    trained = failing(monkeypatch)
    with monkeypatch.context() as disk:
        disk.setattr(rows, "FLUSH_EVERY_S", -1.0)
        disk.setattr(LocalTracker, "flush", full) if moment == "while it trains" else disk.setattr(
            record, "write", full
        )
        with pytest.raises(
            UnwritableError, match=r"cannot write to .*sweep: No space left on device; what is finished is safe"
        ):
            run(wanted, store, TOGETHER)
    assert len(trained) == 3  # the pack was not halved, and no other was begun
    assert records(store.folder) == {}
    assert results(run(wanted, store, TOGETHER)) == alone(wanted)


def test_launch_notes_a_trial_that_ends_worse_than_it_began(tmp_path: Path) -> None:
    wanted = resolved("optimizer.lr=1e6", "optimizer.lr=1e-2", cache=tmp_path)
    wild, tame = run(wanted, Store(tmp_path / "sweep", None), TOGETHER)
    assert [wild.status, tame.status] == ["finished", "finished"]
    assert wild.result["eval/loss"] > 1e6
    [note] = wild.notes
    assert note.startswith("worse than the untouched base: eval/loss ")
    assert tame.notes == ()


@pytest.mark.parametrize(("tracker", "largest"), [("none", 600), ("wandb", (1024 - 128) // 4)])
def test_launch_leaves_room_for_the_open_files_of_its_runs(
    tracker: str, largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.engines.local.resource.getrlimit", lambda which: (1024, 4096))
    wanted = resolved(*(f"seed={seed} tracker={tracker}" for seed in range(3)), cache=tmp_path)
    limits = LaunchOptions(max_pack=600, workers=1)
    assert LocalEngine(limits).max_pack(wanted) == largest


@pytest.mark.parametrize(("pruning", "sizes"), [("null", [2, 2, 1, 1]), ("2", [2, 2, 2, 2])])
def test_launch_fails_a_trial_that_breaks_the_planner_alone(
    pruning: str, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = ("seed=0", "seed=1", "adapter.rank=2 seed=0", "adapter.rank=2 seed=1")
    wanted = resolved(*(f"pruning={pruning} {one}" for one in each), cache=tmp_path)
    own = cost.untrained

    def no_memory(trial: ResolvedTrial, *rest: Any) -> Any:
        if trial.adapter.rank == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(trial, *rest)

    monkeypatch.setattr(cost, "untrained", no_memory)
    found = run(wanted, Store(tmp_path / "sweep", None), TOGETHER)
    assert [one.perf["pack_size"] for one in found] == sizes
    assert all(one.finished for one in found)


def test_launch_warns_of_trials_that_another_version_has_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, store = resolved("seed=0", "seed=1", cache=tmp_path), Store(tmp_path / "sweep", None)
    [earlier] = run(wanted[:1], store, ALONE)
    there = replace(earlier, environment=earlier.environment | {"torch": "0.1"})
    record.write(there, store.trial_folder(wanted[0]))
    run(wanted, store, ALONE)
    assert f"trials of this sweep differ in their environment: torch: 0.1 (1 trial), {torch.__version__}" in caplog.text


def test_launch_trains_one_by_one_what_the_planner_cannot_measure_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any) -> float:
        raise RuntimeError("no clock")

    monkeypatch.setattr("sweep.launch.packing.update_s", broken)
    wanted = resolved("seed=0", "seed=1", cache=tmp_path)
    found = run(wanted, Store(tmp_path / "sweep", None), TOGETHER)
    assert [(one.status, one.perf["pack_size"]) for one in found] == [("finished", 1)] * 2
    says = f"the planner could not measure a pack, so its trials train one by one: {wanted[0].label}: RuntimeError: no clock"
    assert says in caplog.text


def test_launch_ends_where_the_cache_of_the_bases_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("In the beginning was the word. " * 200)
    texts = (f"task.{name}_text={tmp_path / 'own.txt'}" for name in ("source", "target"))
    wanted = resolved("", common=("task=transformer_tiny", "tracker=none", *texts), cache=tmp_path / "cache")
    (tmp_path / "cache").touch()
    with pytest.raises(NotADirectoryError):
        run(wanted, Store(tmp_path / "sweep", None), ALONE)
    assert records(tmp_path / "sweep") == {}
