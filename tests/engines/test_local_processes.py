"""Packs in processes of their own: the same results, and a process that is killed costs only its own trial."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.record import read
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from tests.support.commands import history, resolved, untimed

LONG = ("task=toy_regression", "tracker=none", "training.steps=1500", "training.eval_every=500")
EACH = ["seed=0", "seed=1", "seed=2", "adapter.rank=2"]


@pytest.mark.slow
@pytest.mark.torture
def test_local_engine_of_two_processes_leaves_the_same_and_survives_a_killed_child(tmp_path: Path) -> None:
    wanted = resolved(*EACH, common=LONG, cache=tmp_path)
    one, two = Store(tmp_path / "one", None), Store(tmp_path / "two", None)
    expected = run(wanted, one, LaunchOptions(workers=1))
    victim = wanted[1]
    with killing_whoever_trains(victim, two) as kills:
        found = run(wanted, two, LaunchOptions(workers=2))
    assert len(kills) >= 2  # in the common pack, and again alone
    assert [each.status for each in found] == ["finished", "failed", "finished", "finished"]
    for number in (0, 2, 3):
        assert untimed(found[number]) == untimed(expected[number])
        assert history(two.trial_folder(wanted[number])) == history(one.trial_folder(wanted[number]))
    error = found[1].error
    assert error is not None
    assert error["type"] == "WorkerKilledError"
    assert "killed from outside" in error["message"]
    assert read(two.trial_folder(victim)) == found[1]
    again = run(wanted, two, LaunchOptions(workers=2))
    assert [untimed(each) for each in again] == [untimed(each) for each in expected]
    assert multiprocessing.active_children() == []


@contextmanager
def killing_whoever_trains(victim: ResolvedTrial, store: Store) -> Iterator[list[int]]:
    """Kill all workers each time that one of them has begun to train ``victim``."""
    log, stop, kills = store.trial_folder(victim) / "trial.log", threading.Event(), list[int]()

    def watch() -> None:
        begun = 0
        while not stop.wait(0.002):
            attempts = log.read_text().count("in a pack of") if log.exists() else 0
            if attempts > begun:
                begun = attempts
                for worker in multiprocessing.active_children():
                    worker.kill()
                kills.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield kills
    finally:
        stop.set()
        watcher.join()
