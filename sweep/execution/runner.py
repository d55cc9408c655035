"""Run the trials of a launch: skip what is done, plan packs, train them, keep what they leave."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.execution.job import Job
from sweep.execution.pack import WORTH_WORKERS_S, Pack, plan, trainable_of
from sweep.execution.progress import progress_bar
from sweep.execution.resolve import device_of
from sweep.execution.sinks import tracking_mode
from sweep.execution.store import Store
from sweep.execution.threads import cores
from sweep.execution.train import base_of
from sweep.execution.workers import run_packs, warm_up
from sweep.record import Record
from sweep.tasks.registry import build

log = logging.getLogger(__name__)

WORTH_WARMING_UP = 8
"""Trials above which workers are made ready before it is known whether the work needs them."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the plan: trials in a pack, and processes (None lets the amount of work decide)."""

    max_pack: int = 256
    workers: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a launch would do: the finished records by trial id, and the packs still to train."""

    finished: dict[str, Record]
    packs: list[Pack]
    workers: int

    @property
    def seconds(self) -> float:
        """Estimated training time with all workers; NaN where nothing was measured."""
        return math.fsum(pack.seconds for pack in self.packs) / self.workers


def make_plan(jobs: Sequence[Job], store: Store, limits: Limits) -> Plan:
    """Find what is finished, drop exact duplicates, and plan the packs of the rest."""
    finished = {job.trial.id: done for job in jobs if (done := store.finished(job))}
    waiting = list({job.trial.id: job for job in jobs if job.trial.id not in finished}.values())
    if len(waiting) > WORTH_WARMING_UP:
        warm_up(mirrored=waiting[0].config.tracker.mode != "none")
    possible = limits.workers or (1 if waiting and device_of(waiting[0].config.device).type == "cuda" else cores())
    packs = plan(waiting, limits.max_pack, possible)
    worth = sum(pack.work for pack in packs) > WORTH_WORKERS_S
    workers = possible if limits.workers or worth else 1
    return Plan(finished, packs, max(1, min(workers, len(packs))))


def run(jobs: Sequence[Job], store: Store, limits: Limits) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Returns:
        The record of every job, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    """
    planned = make_plan(jobs, store, limits)
    if len(jobs) > 1:
        log.info(summary(planned, jobs))
    records = dict(planned.finished)
    if planned.packs:
        records |= _execute(planned, store)
    return [records[job.trial.id] for job in jobs]


def summary(planned: Plan, jobs: Sequence[Job]) -> str:
    """How many trials there are, and how many of them need no training."""
    distinct = len({job.trial.id for job in jobs})
    return (
        f"{len(jobs)} trials: {len(jobs) - distinct} exact duplicates dropped, "
        f"{len(planned.finished)} already finished, {distinct - len(planned.finished)} to train"
    )


def describe(planned: Plan, jobs: Sequence[Job]) -> str:
    """The plan in words: a line for each pack with its size, trained parameters, memory and time."""
    lines = [summary(planned, jobs)]
    packs = Counter(_in_words(pack) for pack in planned.packs)
    lines += [f"  {count:3d} × {words}" for words, count in packs.items()]
    if planned.packs:
        total = f"about {planned.seconds:.0f} s" if math.isfinite(planned.seconds) else "an unmeasured time"
        lines.append(
            f"{len(planned.packs)} packs on {planned.workers} processes: {total} of training, evaluation aside"
        )
    return "\n".join(lines)


def _in_words(pack: Pack) -> str:
    first = pack.jobs[0].trial
    sizes = sorted({trainable_of(job) for job in pack.jobs})
    return (
        f"{len(pack.jobs):3d} trials of {first.task.name} ({first.adapter.kind}), "
        f"{pack.steps} steps, training {' or '.join(f'{size:,}' for size in sizes)} "
        f"numbers each, about {pack.memory_bytes / 1e6:,.0f} MB"
        + (f" and {pack.seconds:.1f} s" if math.isfinite(pack.seconds) else "")
    )


def _execute(planned: Plan, store: Store) -> dict[str, Record]:
    mode = tracking_mode(planned.packs[0].jobs[0])
    for job in {pack.jobs[0].trial.task: pack.jobs[0] for pack in planned.packs}.values():
        pretraining = build(job.trial.task, job.cache_folder).pretraining
        with progress_bar(f"pre-training {job.trial.task.name}", pretraining.steps if pretraining else 0) as bar:
            base_of(job, lambda step, bar=bar: bar.advance())  # type: ignore[misc]
    trials = sum(len(pack.jobs) for pack in planned.packs)
    steps = sum(len(pack.jobs) * pack.steps for pack in planned.packs)
    records: dict[str, Record] = {}
    with progress_bar(f"training {trials} trials", steps) as bar:
        for batch in run_packs(planned.packs, store, mode, planned.workers, bar.advance):
            records |= {record.trial_id: record for record in batch}
            lost = sum(not record.finished for record in records.values())
            bar.say(f"{len(records)} done" + (f", {lost} of them failed" if lost else ""))
    return records
