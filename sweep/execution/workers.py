"""Spread packs over the cores of one machine: one process and one thread for each pack at a time."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any

import torch

from sweep.execution.engine import failed
from sweep.execution.environment import environment
from sweep.execution.pack import Pack
from sweep.execution.sinks import wandb_sweep
from sweep.execution.store import Store
from sweep.execution.train import train_pack
from sweep.record import Record
from sweep.trackers.local import LocalTracker

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

POLL_S = 0.2

OnStep = Callable[[int], None]


class WorkerKilledError(RuntimeError):
    """The process that trained a trial was ended from outside, by the system's memory killer for example."""


def warm_up(mirrored: bool) -> None:
    """Begin to import what workers need, in a process that they will be forked from, while this one plans."""
    modules = ["sweep.execution.train", *(["sweep.trackers.wandb"] if mirrored else [])]
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    forkserver.ensure_running()


def run_packs(
    packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: OnStep
) -> Iterator[list[Record]]:
    """Train every pack and yield its records as it ends.

    Args:
        packs: the plan, longest first.
        store: the sweep's folder.
        mode: of the W&B mirror, ``offline`` or ``online``; None for no mirror.
        workers: how many processes; with one, packs train in this process.
        on_steps: called with the number of trial-steps just done, for progress.

    """
    if workers == 1:
        mirror = wandb_sweep(packs[0].jobs[0], store, mode) if packs else None
        for pack in packs:
            yield train_pack(pack.jobs, store, mirror, lambda step, pack=pack: on_steps(len(pack.jobs)))  # type: ignore[misc]
        return
    context = multiprocessing.get_context("forkserver")
    steps: Queue[int] = context.Queue()
    suspects: list[Pack] = []
    with ProcessPoolExecutor(workers, context, _start_worker, (steps,)) as pool, _children_end_with_us():
        waiting: dict[Future[list[Record]], Pack] = {}
        for pack in packs:
            waiting[pool.submit(_work, pack, store, mode)] = pack
        while waiting:
            done, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
            _drain(steps, on_steps)
            for future in done:
                pack = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    suspects.append(pack)
    for pack in suspects:
        yield from _one_by_one(pack, store, mode, context, steps)
        _drain(steps, on_steps)


def _one_by_one(
    pack: Pack, store: Store, mode: "Mode | None", context: Any, steps: "Queue[int]"
) -> Iterator[list[Record]]:
    """Train a pack whose process may have been killed in a process of its own; halve it if it is killed again."""
    with ProcessPoolExecutor(1, context, _start_worker, (steps,)) as pool, _children_end_with_us():
        try:
            yield pool.submit(_work, pack, store, mode).result()
            return
        except BrokenProcessPool:
            pass
    if len(pack.jobs) > 1:
        for half in pack.halves():
            yield from _one_by_one(half, store, mode, context, steps)
        return
    [job] = pack.jobs
    killed = WorkerKilledError("the process was killed from outside; did the machine run out of memory?")
    record = store.record_of(job, failed(killed), environment(torch.device("cpu"), base="unknown"))
    LocalTracker(store.trial_folder(job)).finish(record)
    yield [record]


@contextmanager
def _children_end_with_us() -> Iterator[None]:
    """End the workers when the block is left early, by Ctrl-C for example; the pool would wait for all packs."""
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise


_steps: "Queue[int] | None" = None


def _start_worker(steps: "Queue[int]") -> None:
    global _steps
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no orphan behind: a killed parent can neither give work nor take results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(pack: Pack, store: Store, mode: "Mode | None") -> list[Record]:
    steps, size = _steps, len(pack.jobs)
    assert steps is not None
    mirror = wandb_sweep(pack.jobs[0], store, mode)
    return train_pack(pack.jobs, store, mirror, lambda step: steps.put(size))


def _drain(steps: "Queue[int]", on_steps: OnStep) -> None:
    try:
        while True:
            on_steps(steps.get_nowait())
    except queue.Empty:
        pass
