"""Spread packs over the cores of one machine: a process for each pack at a time, and its share of the threads."""

import logging
import multiprocessing
import os
import resource
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

import torch

from sweep.engines.options import LaunchOptions
from sweep.engines.warm_up import warm_up
from sweep.hardware import cores, device_of
from sweep.packs.pack import Pack
from sweep.packs.rows import wandb_sweep
from sweep.packs.train_pack import OnStep, record_failure, train_pack
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from sweep.text import PrintableRecord

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

POLL_S = 0.2
FILES_OF_A_WANDB_RUN = 4
"""Open files that wandb needs for each open run."""
OTHER_FILES = 128
"""Other open files of a process."""
LEAVING_S = 60.0
"""How long an interrupted worker may take to close its files and W&B runs, in seconds."""


class WorkerKilledError(RuntimeError):
    """The process that trained a trial was ended from outside, by the system's memory killer for example."""


class LocalEngine:
    """Packs in processes of this machine; a single one trains in the process of the launch."""

    start_s = 0.0
    least_work_s = 4.0
    """Starting processes costs more than it saves below that."""
    is_here = True
    room = None

    def __init__(self, options: LaunchOptions):
        self._options = options
        self.assumed_places = cores()

    def connect(self) -> None:
        """Do nothing: this machine needs no connection."""

    def places(self, trials: Sequence[ResolvedTrial]) -> int:
        """One per core; a single one on a GPU."""
        return 1 if device_of(trials[0].config.device).type == "cuda" else cores()

    def max_pack(self, trials: Sequence[ResolvedTrial]) -> int:
        """As many as the user allows, or fewer where each trial has a W&B run and the system allows few open files."""
        if trials[0].config.tracker.mode == "none":
            return self._options.max_pack
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(self._options.max_pack, (allowed - OTHER_FILES) // FILES_OF_A_WANDB_RUN))

    def run(
        self, packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: OnStep
    ) -> Generator[list[Record], None, None]:
        """Train every pack and yield its records as it ends; the arguments are those of ``Engine.run``."""
        if workers == 1:
            mirror = wandb_sweep(packs[0].trials[0], store, mode) if packs else None
            for pack in packs:
                yield train_pack(pack.trials, store, mirror, on_steps)
            return
        warm_up(mirrored=mode is not None)
        progress = Progress(len(packs), on_steps)
        suspects: list[int] = []
        with _pool(workers, progress) as pool:
            waiting = {pool.submit(_train, pack, store, mode, number): number for number, pack in enumerate(packs)}
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
            yield pool.submit(_train, pack, store, mode, number).result()
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
    yield record_failure(pack.trials, store, killed)


class Progress:
    """Trial-steps that workers have done: one counter per pack, written by the process that trains it.

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
    with ProcessPoolExecutor(workers, context, _start_worker, (progress.counters, workers)) as pool:
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


class _Worker:
    """The state of a worker process: the counters of steps, one per pack, and whether a pack trains in it now."""

    counters: Any = None
    is_training = False


def _start_worker(counters: Any, workers: int) -> None:
    _Worker.counters = counters
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    logging.setLogRecordFactory(PrintableRecord)  # what a worker logs is masked as what the launch logs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends us
    signal.signal(signal.SIGTERM, _exit_worker)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _exit_worker(*_: object) -> None:
    """End this worker, but let a pack that trains write what it has."""
    if not _Worker.is_training:
        os._exit(1)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End with the parent: a killed one can neither give work nor take results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(pack: Pack, store: Store, mode: "Mode | None", number: int) -> list[Record]:
    def count(steps: int) -> None:
        _Worker.counters[number] += steps

    try:
        _Worker.is_training = True
        try:
            return train_pack(pack.trials, store, wandb_sweep(pack.trials[0], store, mode), count)
        finally:
            _Worker.is_training = False
    except KeyboardInterrupt:
        os._exit(1)
