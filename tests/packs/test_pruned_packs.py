"""Pruning in a pack: the others go on bit for bit as if alone, and what was pruned says so and stays out."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.record import Record
from sweep.store.store import Store
from tests.support.commands import ROOT, TOY, history, records, resolved, untimed

ALONE, TOGETHER = LaunchOptions(max_pack=1, workers=1), LaunchOptions(workers=1)
RATES = ("1e-5", "1e-2", "1e-4", "2e-2", "1e-3")
HOW = ("training.steps=40", "training.eval_every=10", "training.log_every=5")
TINY = (
    "task=transformer_tiny",
    "tracker=none",
    "task.pretraining.steps=5",
    "task.eval_windows=16",
    "task.validation=12",
)
PRUNED = "pruning=2"


def status(found: list[Record]) -> list[str]:
    return [one.status for one in found]


@pytest.mark.parametrize(
    "settings",
    [
        (*TOY, *HOW),
        (*TOY, *HOW, "optimizer=sgd", "optimizer.momentum=0.9", "adapter.dropout=0.2", "adapter.bias=all"),
        (
            *TOY,
            *HOW,
            "optimizer.weight_decay=0.1",
            "adapter.init=pissa",
            "optimizer.clip_norm=1.0",
            "save_adapter=true",
        ),
        pytest.param((*TINY, *HOW, "optimizer.lr_ratio=4"), marks=pytest.mark.slow),
        (*TOY, *HOW, "training.keep=best", "adapter.bias=all", "save_adapter=true"),
    ],
    ids=["toy", "dropout and momentum", "moved base", "transformer", "best"],
)
def test_pruning_survivors_equal_alone(settings: tuple[str, ...], tmp_path: Path) -> None:
    each = [f"optimizer.lr={lr} seed={seed}" for lr in RATES for seed in (0, 1)]
    alone, together = Store(tmp_path / "alone", None), Store(tmp_path / "together", None)
    wanted = resolved(*(f"{PRUNED} {one}" for one in each), common=settings, cache=tmp_path)
    expected = run(wanted, alone, ALONE)
    assert status(expected) == ["finished"] * 10
    found = run(wanted, together, TOGETHER)
    assert {one.perf["pack_size"] for one in found} == {10}
    assert sum(one.finished for one in found) == 4  # 5 cells: 3 go on from step 10, 2 from step 20
    for trial, one, reference in zip(wanted, found, expected, strict=True):
        rows, all_rows = history(together.trial_folder(trial)), history(alone.trial_folder(trial))
        if one.finished:
            assert untimed(one) == untimed(reference)
            assert rows == all_rows
            assert [path.read_bytes() for path in (together.trial_folder(trial) / "adapter").glob("*")] == [
                path.read_bytes() for path in (alone.trial_folder(trial) / "adapter").glob("*")
            ]
        else:
            last = rows[-1]["step"]
            assert one.status == "pruned"
            assert one.notes[-1] == f"pruned after step {last} of 40"
            assert last in (10, 20)
            assert rows == [row for row in all_rows if row["step"] <= last]
            assert one.result["eval/loss"] == rows[-1]["eval/loss"]
            assert one.params == reference.params
            assert one.error is None
            assert "step_ms" not in one.perf
    best = {trial.optimizer.lr for trial, one in zip(wanted, found, strict=True) if one.finished}
    at_ten = {
        lr: [history(alone.trial_folder(trial))[2]["eval/loss"] for trial in wanted if trial.optimizer.lr == lr]
        for lr in map(float, RATES)
    }
    assert best < set(sorted(at_ten, key=lambda lr: sum(at_ten[lr]))[:3])


def test_pruning_drops_layers_that_no_survivor_adapts(tmp_path: Path) -> None:
    common = (*TOY, *HOW, "task.hidden=[16]")
    each = [f"adapter.targets=[layers.{layer}] optimizer.lr={lr}" for layer, lr in ((0, "1e-5"), (1, "1e-2"))]
    expected = run(resolved(*each, common=common, cache=tmp_path), Store(tmp_path / "alone", None), ALONE)
    found = run(
        resolved(*(f"{PRUNED} {one}" for one in each), common=common, cache=tmp_path),
        Store(tmp_path / "both", None),
        TOGETHER,
    )
    assert status(found) == ["pruned", "finished"]
    assert untimed(found[1]) == untimed(expected[1])


def test_pruning_calls_a_diverged_trial_diverged(tmp_path: Path) -> None:
    each = ("optimizer.lr=1e30", "optimizer.lr=1e-2", "optimizer.lr=1e-5", "optimizer.lr=2e-2")
    found = run(resolved(*each, common=(*TOY, *HOW, PRUNED), cache=tmp_path), Store(tmp_path / "s", None), TOGETHER)
    assert status(found)[0] == "diverged"
    assert sorted(status(found)) == ["diverged", "finished", "pruned", "pruned"]


def test_pruning_stays_until_it_is_no_longer_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", None)
    each = [f"optimizer.lr={lr}" for lr in RATES]
    found = run(resolved(*(f"{PRUNED} {one}" for one in each), common=(*TOY, *HOW), cache=tmp_path), store, TOGETHER)
    assert sorted(set(status(found))) == ["finished", "pruned"]
    assert (
        run(resolved(*(f"{PRUNED} {one}" for one in each), common=(*TOY, *HOW), cache=tmp_path), store, TOGETHER)
        == found
    )
    full = run(resolved(*each, common=(*TOY, *HOW), cache=tmp_path), store, TOGETHER)
    assert status(full) == ["finished"] * 5
    assert [one for one in full if one in found] == [one for one in found if one.finished]


KILLED_AT_THE_FOURTH_RECORD = """
import itertools, os, signal, sys, threading
from pathlib import Path
from sweep import record
from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.store.store import Store
from tests.support.commands import resolved
own, number, one_by_one = record.write, itertools.count(), threading.Lock()
def write(*what):
    with one_by_one:
        if next(number) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        own(*what)
record.write = write
folder, common, each = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")
run(resolved(*each, common=tuple(common), cache=folder), Store(folder / "killed", None), LaunchOptions(max_pack=8, workers=1))
"""


@pytest.mark.slow
def test_pruning_of_a_pack_killed_between_two_records_stays_as_decided(tmp_path: Path) -> None:
    common = (*TOY, *HOW, PRUNED)
    each = [
        f"optimizer.lr={lr} seed={seed}" for lr in ("1e-2", "2e-2", "3e-2", "1e-3", "1e-4", "1e-5") for seed in (0, 1)
    ]  # packs of 8 and 4
    wanted, killed, limits = (
        resolved(*each, common=common, cache=tmp_path),
        Store(tmp_path / "killed", None),
        LaunchOptions(max_pack=8, workers=1),
    )
    expected = run(wanted, Store(tmp_path / "whole", None), limits)
    line = [sys.executable, "-c", KILLED_AT_THE_FOURTH_RECORD, str(tmp_path), ",".join(common), ",".join(each)]
    assert subprocess.run(line, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(records(killed.folder)) == 3
    assert [untimed(one) for one in run(wanted, killed, limits)] == [untimed(one) for one in expected]
    logs = [(killed.trial_folder(trial) / "trial.log").read_text() for trial in wanted]
    assert [log.count("in a pack of") for log in logs] == [1] * 12


def test_pruning_does_not_compare_a_trial_twice(tmp_path: Path) -> None:
    """Finished trials whose histories were cut are trained again, and all of them to the end, as before."""
    wanted, store = (
        resolved(
            *(f"{PRUNED} optimizer.lr={lr} seed={seed}" for lr in RATES for seed in (0, 1)),
            common=(*TOY, *HOW),
            cache=tmp_path,
        ),
        Store(tmp_path / "s", None),
    )
    expected = run(wanted, store, TOGETHER)
    finished = [trial for trial, one in zip(wanted, expected, strict=True) if one.finished]
    assert len(finished) == 4
    for trial in finished:
        (store.trial_folder(trial) / "history.jsonl").unlink()
    assert [untimed(one) for one in run(wanted, store, TOGETHER)] == [untimed(one) for one in expected]
    assert [history(store.trial_folder(trial))[-1]["step"] for trial in finished] == [40] * 4
