"""Run the trials of a launch: skip what is done, plan packs, train them, keep what they leave."""

import logging
import math
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from sweep import schema
from sweep.execution.engines import Cluster, Engine, engine_of
from sweep.execution.estimate import trainable_of
from sweep.execution.job import Job
from sweep.execution.pack import WORTH_WORKERS_S, Pack, plan
from sweep.execution.progress import progress_bar
from sweep.execution.resolve import device_of
from sweep.execution.sinks import tracking_mode
from sweep.execution.store import Store
from sweep.execution.threads import cores
from sweep.execution.train import lose, pretrain
from sweep.execution.workers import run_packs
from sweep.record import Record, mixtures
from sweep.schema import ConfigError
from sweep.tasks.registry import build

log = logging.getLogger(__name__)

FILES_OF_A_RUN = 4
"""Open files that wandb needs for each open run."""
OTHER_FILES = 128
"""Open files that a process may have besides."""


class TooManyFailuresError(RuntimeError):
    """The sweep was stopped because more of its trials failed than ``max_failures`` allows."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a launch.

    ``max_pack`` trials train together, in ``workers`` processes (None lets the amount of work decide). More
    than ``max_failures`` failed trials end it. ``retry_failed`` trains again what failed in an earlier launch.
    ``cluster`` says where the packs run.
    """

    max_pack: int = 256
    workers: int | None = None
    max_failures: int | None = None
    retry_failed: bool = True
    cluster: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True)
class Plan:
    """What a launch would do: the records by trial id that stay, and the packs still to train.

    ``workers`` packs run at once, on ``engine``; None is this machine.
    """

    settled: dict[str, Record]
    packs: list[Pack]
    workers: int
    engine: Engine | None = None

    @property
    def seconds(self) -> float:
        """Estimated training time with all workers; NaN where nothing was measured."""
        return math.fsum(pack.seconds for pack in self.packs) / self.workers


def make_plan(jobs: Sequence[Job], store: Store, limits: Limits) -> Plan:
    """Find what is settled, drop exact duplicates, and plan the packs of the rest."""
    settled = _settled(jobs, store, limits)
    waiting = list({job.trial.id: _unjudged(job, store) for job in jobs if job.trial.id not in settled}.values())
    if waiting and (engine := engine_of(limits.cluster)):
        places = limits.workers or engine.places()
        packs = plan(waiting, limits.max_pack, places, limits.cluster.room, engine.start_s)
        return Plan(settled, packs, max(1, min(places, len(packs))), engine)
    possible = limits.workers or (1 if waiting and device_of(waiting[0].config.device).type == "cuda" else cores())
    packs = plan(waiting, _most_in_a_pack(waiting, limits), possible)
    worth = sum(pack.work for pack in packs) > WORTH_WORKERS_S
    workers = possible if limits.workers or worth else 1
    return Plan(settled, packs, max(1, min(workers, len(packs))))


def _most_in_a_pack(jobs: Sequence[Job], limits: Limits) -> int:
    """``max_pack``, or fewer where each trial has a W&B run and the system allows few open files."""
    if not jobs or jobs[0].config.tracker.mode == "none":
        return limits.max_pack
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(limits.max_pack, (allowed - OTHER_FILES) // FILES_OF_A_RUN))


def run(jobs: Sequence[Job], store: Store, limits: Limits) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Trials that another launch is training are left to it; their records are awaited at the end, and what it
    did not finish, being killed for example, is trained here.

    Returns:
        The record of every job, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    Raises:
        TooManyFailuresError: more than ``limits.max_failures`` trials failed in this launch.
        UnwritableError: the sweep's folder takes no more.

    """
    store.complete()
    planned = make_plan(jobs, store, limits)
    if len(jobs) > 1:
        others = store.others(jobs)
        log.info(summary(planned, jobs) + (f" ({others} more in this folder are of other settings)" if others else ""))
    for job in jobs:
        store.trial_folder(job).mkdir(parents=True, exist_ok=True)  # by which it is seen that it was asked for
    records = planned.settled | _execute(planned, store, limits)
    while elsewhere := [job for job in jobs if job.trial.id not in records]:
        log.info("another launch is training %d of the trials; waiting for it", len(elsewhere))
        store.wait_for(elsewhere)
        store.complete()
        planned = make_plan(elsewhere, store, replace(limits, retry_failed=False))
        records |= planned.settled | _execute(planned, store, limits)
    for line in mixtures(records.values()):
        log.warning("trials of this sweep differ in their environment: %s", line)
    return [records[job.trial.id] for job in jobs]


def summary(planned: Plan, jobs: Sequence[Job]) -> str:
    """How many trials there are, and how many of them need no training."""
    distinct = len({job.trial.id for job in jobs})
    finished = sum(record.finished for record in planned.settled.values())
    left = len(planned.settled) - finished
    return (
        f"{len(jobs)} trials: {len(jobs) - distinct} exact duplicates dropped, {finished} already finished, "
        + (f"{left} that failed left alone, " if left else "")
        + f"{distinct - len(planned.settled)} to train"
    )


def describe(planned: Plan, jobs: Sequence[Job]) -> str:
    """The plan in words: a line for each pack with its size, trained parameters, memory and time."""
    lines = [summary(planned, jobs)]
    packs = Counter(_in_words(pack) for pack in planned.packs)
    lines += [f"  {count:3d} × {words}" for words, count in packs.items()]
    if planned.packs:
        total = f"about {planned.seconds:.0f} s" if math.isfinite(planned.seconds) else "an unmeasured time"
        lines.append(f"{len(planned.packs)} packs, {planned.workers} at once: {total} of training, evaluation aside")
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


def _unjudged(job: Job, store: Store) -> Job:
    """``job``, without pruning if it is to be trained again: it was judged then, among others than now."""
    return replace(job, config=job.config.model_copy(update={"pruning": None})) if store.was_judged(job) else job


def _settled(jobs: Sequence[Job], store: Store, limits: Limits) -> dict[str, Record]:
    settled: dict[str, Record] = {}
    faults: list[str] = []
    for job in jobs:
        try:
            if earlier := store.settled(job, limits.retry_failed):
                settled[job.trial.id] = earlier
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return settled


def _execute(planned: Plan, store: Store, limits: Limits) -> dict[str, Record]:
    if not planned.packs:
        return {}
    mode = tracking_mode(planned.packs[0].jobs[0])
    trials = sum(len(pack.jobs) for pack in planned.packs)
    steps = sum(len(pack.jobs) * pack.steps for pack in planned.packs)
    records: dict[str, Record] = {}
    run_on = planned.engine.run if planned.engine else run_packs
    packs = []
    for pack, error in _with_bases(planned.packs):
        if error is None:
            packs.append(pack)
        else:
            records |= {record.trial_id: record for record in lose(pack.jobs, store, error)}
    with (
        progress_bar(f"training {trials} trials", steps) as bar,
        closing(run_on(packs, store, mode, planned.workers, bar.advance)) as batches,
    ):
        for batch in batches:
            records |= {record.trial_id: record for record in batch}
            errors = [record.error["message"] for record in records.values() if record.error]
            bar.say(f"{len(records)} done" + (f", {len(errors)} of them failed" if errors else ""))
            if limits.max_failures is not None and len(errors) > limits.max_failures:
                raise TooManyFailuresError(
                    f"stopped, for {len(errors)} trials failed and max_failures={limits.max_failures}; "
                    f"the last one said: {errors[-1]}"
                )
    return records


def _with_bases(packs: Sequence[Pack]) -> Iterator[tuple[Pack, Exception | None]]:
    """Every pack once its base is there, or with the error that kept it from being made."""
    errors: dict[schema.Task, Exception | None] = {}
    for pack in packs:
        job = pack.jobs[0]
        if job.trial.task not in errors:
            errors[job.trial.task] = None
            pretraining = build(job.trial.task, job.cache_folder).pretraining
            with progress_bar(f"pre-training {job.trial.task.name}", pretraining.steps if pretraining else 0) as bar:
                try:
                    pretrain(job, lambda step, bar=bar: bar.advance())  # type: ignore[misc]
                except OSError:  # the cache cannot be read or written
                    raise
                except Exception as error:
                    errors[job.trial.task] = error
        yield pack, errors[job.trial.task]
