"""Run the trials of a launch: skip what is done, plan packs, train them, keep what they leave."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweep.adapters.fold import export
from sweep.execution.base import Base, load_base, threads
from sweep.execution.engine import failed, run_pack
from sweep.execution.environment import environment
from sweep.execution.job import Job
from sweep.execution.pack import plan
from sweep.execution.progress import SweepProgress, sweep_progress
from sweep.execution.resolve import device_of
from sweep.execution.sinks import PackSinks, wandb_sweep
from sweep.execution.store import Store
from sweep.record import Record
from sweep.tasks.registry import build

if TYPE_CHECKING:
    from sweep.trackers.wandb import WandbSweep


def run(jobs: Sequence[Job], store: Store) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Returns:
        The record of every job, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    """
    records = {job.trial.id: done for job in jobs if (done := store.finished(job))}
    waiting = list({job.trial.id: job for job in jobs if job.trial.id not in records}.values())
    if waiting:
        mirror = wandb_sweep(waiting[0], store)
        with sweep_progress(len(waiting)) as progress:
            for positions in plan([job.trial for job in waiting]):
                pack = [waiting[position] for position in positions]
                records |= {record.trial_id: record for record in _train(pack, store, mirror, progress)}
                progress.trials_done(len(pack))
    return [records[job.trial.id] for job in jobs]


def _train(pack: Sequence[Job], store: Store, mirror: "WandbSweep | None", progress: SweepProgress) -> list[Record]:
    first = pack[0].trial
    task = build(first.task, pack[0].cache_folder)
    base = _base(pack[0], progress)
    sinks = PackSinks(pack, store, mirror)
    for position, job in enumerate(pack):
        what = ", ".join(job.resolved.targets) or job.trial.adapter.kind
        sinks.note(position, f"trial {job.trial.id} in a pack of {len(pack)} on base {base.sha256}, adapting {what}")

    def on_step(step: int) -> None:
        progress.step(step)
        sinks.flush()

    progress.start(first.label if len(pack) == 1 else f"pack of {len(pack)}", first.training.steps)
    with threads(1):
        here = environment(device_of(pack[0].config.device), base.sha256)
        try:
            outcomes, folded = run_pack(pack, task, base, sinks.rows, on_step)
            for position, job in enumerate(pack):
                if job.config.save_adapter:
                    store.save_adapter(job, export(folded, position))
        except Exception as error:
            outcomes = [failed(error)] * len(pack)
    records = [store.record_of(job, outcome, here) for job, outcome in zip(pack, outcomes, strict=True)]
    sinks.finish(records)
    return records


def _base(job: Job, progress: SweepProgress) -> Base:
    task = build(job.trial.task, job.cache_folder)
    what, steps = f"pre-training {job.trial.task.name}", task.pretraining.steps if task.pretraining else 0

    def on_step(step: int) -> None:
        if step == 1:
            progress.start(what, steps)
        progress.step(step)

    device = device_of(job.config.device)
    return load_base(job.trial.task, job.trial.data, task, job.cache_folder, device, on_step)
