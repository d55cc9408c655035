"""Spread packs over the cores of one machine: one process and one thread for each pack at a time."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from sweep.packs.pack import Pack
from sweep.packs.rows import wandb_sweep
from sweep.packs.train_pack import OnStep, lose, train_pack
from sweep.record import Record
from sweep.store.store import Store

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

POLL_S = 0.2
LEAVING_S = 60.0
"""How long an interrupted worker may take to close its files and W&B runs."""


class WorkerKilledError(RuntimeError):
    """The process that trained a trial was ended from outside, by the system's memory killer for example."""


def run_packs(
    packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: OnStep
) -> Generator[list[Record], None, None]:
    """Train every pack and yield its records as it ends.

    Args:
        packs: the plan, longest first.
        store: the sweep's folder.
        mode: of the W&B mirror, ``offline`` or ``online``; None for no mirror.
        workers: how many processes; with one, packs train in this process.
        on_steps: called with the number of trial-steps just done, for progress.

    """
    if workers == 1:
        mirror = wandb_sweep(packs[0].trials[0], store, mode) if packs else None
        for pack in packs:
            yield train_pack(pack.trials, store, mirror, on_steps)
        return
    progress = Progress(len(packs), on_steps)
    suspects: list[int] = []
    with _pool(workers, progress) as pool:
        waiting = {pool.submit(_work, pack, store, mode, number): number for number, pack in enumerate(packs)}
        while waiting:
            done, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            progress.show()
            for future in done:
                number = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    suspects.append(number)
    for number in suspects:
        yield from _one_by_one(packs[number], store, mode, progress, number)


def _one_by_one(
    pack: Pack, store: Store, mode: "Mode | None", progress: "Progress", number: int
) -> Generator[list[Record], None, None]:
    """Train a pack whose process may have been killed in a process of its own; halve it if it is killed again."""
    with _pool(1, progress) as pool:
        try:
            yield pool.submit(_work, pack, store, mode, number).result()
            return
        except BrokenProcessPool:
            pass
        finally:
            progress.show()
    if len(pack.trials) > 1:
        for half in pack.halves():
            yield from _one_by_one(half, store, mode, progress, number)
        return
    killed = WorkerKilledError("the process was killed from outside; did the machine run out of memory?")
    yield lose(pack.trials, store, killed)


class Progress:
    """Steps of trials that workers have done: a counter for each pack, written by whoever trains it.

    Plain shared memory: a queue's lock would be lost with a worker that is killed while it holds it.
    """

    def __init__(self, packs: int, on_steps: OnStep):
        self.counters = multiprocessing.get_context("forkserver").RawArray("q", packs)
        self._on_steps = on_steps
        self._shown = 0

    def show(self) -> None:
        """Report what was done since the last time."""
        done = sum(self.counters)
        self._on_steps(done - self._shown)
        self._shown = done


@contextmanager
def _pool(workers: int, progress: Progress) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, which end with the block: at once where it is left early, by Ctrl-C for example."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, _start_worker, (progress.counters,)) as pool:
        try:
            yield pool
        except BaseException:
            _end(multiprocessing.active_children())
            raise


def _end(processes: Sequence[BaseProcess]) -> None:
    latest = time.monotonic() + LEAVING_S
    for process in processes:
        process.terminate()
    for process in processes:
        connection.wait([process.sentinel], max(0.0, latest - time.monotonic()))
        process.kill()


_counters: Any = None
_is_training = False


def _start_worker(counters: Any) -> None:
    global _counters
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _leave(*_: object) -> None:
    """End this worker, but let a pack that trains write what it has."""
    if not _is_training:
        os._exit(1)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Leave no orphan behind: a killed parent can neither give work nor take results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(pack: Pack, store: Store, mode: "Mode | None", number: int) -> list[Record]:
    global _is_training

    def count(steps: int) -> None:
        _counters[number] += steps

    try:
        _is_training = True
        try:
            return train_pack(pack.trials, store, wandb_sweep(pack.trials[0], store, mode), count)
        finally:
            _is_training = False
    except KeyboardInterrupt:
        os._exit(1)
