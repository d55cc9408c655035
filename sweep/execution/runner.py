"""Run the trials of a launch: skip what is done, plan packs, train them, keep what they leave."""

import time
from collections.abc import Sequence

from sweep.adapters.fold import export
from sweep.execution.base import Base, load_base, threads
from sweep.execution.engine import failed, run_pack
from sweep.execution.environment import environment
from sweep.execution.job import Job
from sweep.execution.pack import plan
from sweep.execution.progress import SweepProgress, sweep_progress
from sweep.execution.resolve import device_of
from sweep.execution.store import Store
from sweep.record import Record
from sweep.tasks.registry import build
from sweep.trackers.local import LocalTracker
from sweep.trackers.tracker import Tracker
from sweep.training.loop import Rows

FLUSH_EVERY_S = 0.5


def run(jobs: Sequence[Job], store: Store) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Returns:
        The record of every job, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    """
    records = {job.trial.id: done for job in jobs if (done := store.finished(job))}
    waiting = list({job.trial.id: job for job in jobs if job.trial.id not in records}.values())
    with sweep_progress(len(waiting)) as progress:
        for positions in plan([job.trial for job in waiting]):
            pack = [waiting[position] for position in positions]
            records |= {record.trial_id: record for record in _train(pack, store, progress)}
            progress.trials_done(len(pack))
    return [records[job.trial.id] for job in jobs]


def _train(pack: Sequence[Job], store: Store, progress: SweepProgress) -> list[Record]:
    first = pack[0]
    task = build(first.trial.task, first.cache_folder)
    base = _base(first, progress)
    local = [LocalTracker(store.trial_folder(job)) for job in pack]
    trackers: list[list[Tracker]] = [[*_remote(job), own] for job, own in zip(pack, local, strict=True)]
    for own, job in zip(local, pack, strict=True):
        what = ", ".join(job.resolved.targets) or job.trial.adapter.kind
        own.note(f"trial {job.trial.id} starts in a pack of {len(pack)} on base {base.sha256}, adapting {what}")
    flushed = time.monotonic()

    def on_rows(step: int, rows: Rows) -> None:
        for row, receivers in zip(rows, trackers, strict=True):
            if row:
                for receiver in receivers:
                    receiver.log(step, row)

    def on_step(step: int) -> None:
        nonlocal flushed
        progress.step(step)
        if time.monotonic() - flushed > FLUSH_EVERY_S:
            for own in local:
                own.flush()
            flushed = time.monotonic()

    progress.start(first.trial.label if len(pack) == 1 else f"pack of {len(pack)}", first.trial.training.steps)
    with threads(1):
        here = environment(device_of(first.config.device), base.sha256)
        try:
            outcomes, folded = run_pack(pack, task, base, on_rows, on_step)
            for position, job in enumerate(pack):
                if job.config.save_adapter:
                    store.save_adapter(job, export(folded, position))
        except Exception as error:
            outcomes = [failed(error)] * len(pack)
    records = [store.record_of(job, outcome, here) for job, outcome in zip(pack, outcomes, strict=True)]
    for record, receivers in zip(records, trackers, strict=True):
        for receiver in receivers:
            receiver.finish(record)
    return records


def _remote(job: Job) -> list[Tracker]:
    return []


def _base(job: Job, progress: SweepProgress) -> Base:
    task = build(job.trial.task, job.cache_folder)
    what, steps = f"pre-training {job.trial.task.name}", task.pretraining.steps if task.pretraining else 0

    def on_step(step: int) -> None:
        if step == 1:
            progress.start(what, steps)
        progress.step(step)

    device = device_of(job.config.device)
    return load_base(job.trial.task, job.trial.data, task, job.cache_folder, device, on_step)
