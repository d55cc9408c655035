"""Run the trials of a launch: skip what is done, plan packs, train them, keep what they leave."""

import logging
import math
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from sweep.engines.choose import engine_of
from sweep.engines.engine import Cluster, Engine
from sweep.engines.local import run_packs
from sweep.errors import ConfigError
from sweep.hardware import cores, device_of
from sweep.launch.cost import trainable_of
from sweep.launch.plan import WORTH_WORKERS_S, plan
from sweep.launch.progress import progress_bar
from sweep.packs.pack import Pack
from sweep.packs.rows import tracking_mode
from sweep.packs.train_pack import lose, pretrain
from sweep.record import Record, mixtures
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from sweep.tasks.options import TaskOptions

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


def make_plan(trials: Sequence[ResolvedTrial], store: Store, limits: Limits) -> Plan:
    """Find what is settled, drop exact duplicates, and plan the packs of the rest."""
    settled = _settled(trials, store, limits)
    waiting = list({trial.id: _unjudged(trial, store) for trial in trials if trial.id not in settled}.values())
    if waiting and (engine := engine_of(limits.cluster)):
        places = limits.workers or engine.places()
        packs = plan(waiting, limits.max_pack, places, limits.cluster.room, engine.start_s)
        return Plan(settled, packs, max(1, min(places, len(packs))), engine)
    possible = limits.workers or (1 if waiting and device_of(waiting[0].config.device).type == "cuda" else cores())
    packs = plan(waiting, _most_in_a_pack(waiting, limits), possible)
    worth = sum(pack.work for pack in packs) > WORTH_WORKERS_S
    workers = possible if limits.workers or worth else 1
    return Plan(settled, packs, max(1, min(workers, len(packs))))


def _most_in_a_pack(trials: Sequence[ResolvedTrial], limits: Limits) -> int:
    """``max_pack``, or fewer where each trial has a W&B run and the system allows few open files."""
    if not trials or trials[0].config.tracker.mode == "none":
        return limits.max_pack
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(limits.max_pack, (allowed - OTHER_FILES) // FILES_OF_A_RUN))


def run(trials: Sequence[ResolvedTrial], store: Store, limits: Limits) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Trials that another launch is training are left to it; their records are awaited at the end, and what it
    did not finish, being killed for example, is trained here.

    Returns:
        The record of every trial, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    Raises:
        TooManyFailuresError: more than ``limits.max_failures`` trials failed in this launch.
        UnwritableError: the sweep's folder takes no more.

    """
    store.complete()
    planned = make_plan(trials, store, limits)
    if len(trials) > 1:
        others = store.others(trials)
        log.info(
            summary(planned, trials) + (f" ({others} more in this folder are of other settings)" if others else "")
        )
    for trial in trials:
        store.trial_folder(trial).mkdir(parents=True, exist_ok=True)  # by which it is seen that it was asked for
    records = planned.settled | _execute(planned, store, limits)
    while elsewhere := [trial for trial in trials if trial.id not in records]:
        log.info("another launch is training %d of the trials; waiting for it", len(elsewhere))
        store.wait_for(elsewhere)
        store.complete()
        planned = make_plan(elsewhere, store, replace(limits, retry_failed=False))
        records |= planned.settled | _execute(planned, store, limits)
    for line in mixtures(records.values()):
        log.warning("trials of this sweep differ in their environment: %s", line)
    return [records[trial.id] for trial in trials]


def summary(planned: Plan, trials: Sequence[ResolvedTrial]) -> str:
    """How many trials there are, and how many of them need no training."""
    distinct = len({trial.id for trial in trials})
    finished = sum(record.finished for record in planned.settled.values())
    left = len(planned.settled) - finished
    return (
        f"{len(trials)} trials: {len(trials) - distinct} exact duplicates dropped, {finished} already finished, "
        + (f"{left} that failed left alone, " if left else "")
        + f"{distinct - len(planned.settled)} to train"
    )


def describe(planned: Plan, trials: Sequence[ResolvedTrial]) -> str:
    """The plan in words: a line for each pack with its size, trained parameters, memory and time."""
    lines = [summary(planned, trials)]
    packs = Counter(_in_words(pack) for pack in planned.packs)
    lines += [f"  {count:3d} × {words}" for words, count in packs.items()]
    if planned.packs:
        total = f"about {planned.seconds:.0f} s" if math.isfinite(planned.seconds) else "an unmeasured time"
        lines.append(f"{len(planned.packs)} packs, {planned.workers} at once: {total} of training, evaluation aside")
    return "\n".join(lines)


def _in_words(pack: Pack) -> str:
    first = pack.trials[0]
    sizes = sorted({trainable_of(trial) for trial in pack.trials})
    return (
        f"{len(pack.trials):3d} trials of {first.task.name} ({first.adapter.kind}), "
        f"{pack.steps} steps, training {' or '.join(f'{size:,}' for size in sizes)} "
        f"numbers each, about {pack.memory_bytes / 1e6:,.0f} MB"
        + (f" and {pack.seconds:.1f} s" if math.isfinite(pack.seconds) else "")
    )


def _unjudged(trial: ResolvedTrial, store: Store) -> ResolvedTrial:
    """``trial``, without pruning if it is to be trained again: it was judged then, among others than now."""
    return (
        replace(trial, config=trial.config.model_copy(update={"pruning": None})) if store.was_judged(trial) else trial
    )


def _settled(trials: Sequence[ResolvedTrial], store: Store, limits: Limits) -> dict[str, Record]:
    settled: dict[str, Record] = {}
    faults: list[str] = []
    for trial in trials:
        try:
            if earlier := store.settled(trial, limits.retry_failed):
                settled[trial.id] = earlier
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return settled


def _execute(planned: Plan, store: Store, limits: Limits) -> dict[str, Record]:
    if not planned.packs:
        return {}
    mode = tracking_mode(planned.packs[0].trials[0])
    trials = sum(len(pack.trials) for pack in planned.packs)
    steps = sum(len(pack.trials) * pack.steps for pack in planned.packs)
    records: dict[str, Record] = {}
    run_on = planned.engine.run if planned.engine else run_packs
    packs = []
    for pack, error in _with_bases(planned.packs):
        if error is None:
            packs.append(pack)
        else:
            records |= {record.trial_id: record for record in lose(pack.trials, store, error)}
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
    errors: dict[TaskOptions, Exception | None] = {}
    for pack in packs:
        trial = pack.trials[0]
        if trial.task not in errors:
            errors[trial.task] = None
            pretraining = trial.task.build(trial.cache_folder).pretraining
            with progress_bar(f"pre-training {trial.task.name}", pretraining.steps if pretraining else 0) as bar:
                try:
                    pretrain(trial, lambda step, bar=bar: bar.advance())  # type: ignore[misc]
                except OSError:  # the cache cannot be read or written
                    raise
                except Exception as error:
                    errors[trial.task] = error
        yield pack, errors[trial.task]
