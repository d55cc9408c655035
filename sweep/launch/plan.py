"""The plan of a launch: which trials need no training and why, and the packs of the rest."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sweep.engines.choose import engine_of
from sweep.engines.engine import Engine
from sweep.engines.options import LaunchOptions
from sweep.errors import ConfigError
from sweep.launch.cost import scores_bytes, trainable_of
from sweep.launch.packing import into_packs
from sweep.packs.pack import Pack
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.skip import Skip, decide
from sweep.store.store import Store
from sweep.text import counted

NAMED = 3
"""Trials that the log names for each reason; a dry run names all."""


@dataclass(frozen=True)
class Plan:
    """What a launch would do: the trials that it skips, and the packs to train on ``engine``, ``workers`` at once.

    ``unmeasured`` names what kept the planner from measuring some packs, which then train one by one.
    """

    skips: list[Skip]
    packs: list[Pack]
    workers: int
    engine: Engine
    unmeasured: list[str] = field(default_factory=list)

    @property
    def records(self) -> dict[str, Record]:
        """The records of earlier attempts that stay, by trial id."""
        return {skip.trial.id: skip.record for skip in self.skips if skip.record}

    @property
    def trials(self) -> list[ResolvedTrial]:
        """What is to be trained."""
        return [trial for pack in self.packs for trial in pack.trials]

    @property
    def seconds(self) -> float:
        """Estimated training time with all workers; NaN where nothing was measured."""
        return math.fsum(pack.seconds for pack in self.packs) / self.workers


def make_plan(trials: Sequence[ResolvedTrial], store: Store, options: LaunchOptions) -> Plan:
    """Find what needs no training and divide the rest into packs. A dry run asks no cluster.

    Raises ConfigError with every record that cannot be read, or when the engine does not answer.
    """
    engine = engine_of(options)
    waiting, skips = _divide(trials, store, options.retry_failed)
    if not waiting:
        return Plan(skips, [], 1, engine)
    if options.dry_run:
        places = options.workers or engine.assumed_places
    else:
        engine.connect()
        places = options.workers or engine.places(waiting)
    unmeasured: list[str] = []
    packs = into_packs(waiting, engine.max_pack(waiting), places, engine.room, engine.start_s, unmeasured.append)
    is_worth = options.workers or math.fsum(pack.work for pack in packs) > engine.least_work_s
    workers = max(1, min(places, len(packs))) if is_worth else 1
    return Plan(skips, packs, workers, engine, list(dict.fromkeys(unmeasured)))


def _divide(
    trials: Sequence[ResolvedTrial], store: Store, retry_failed: bool
) -> tuple[list[ResolvedTrial], list[Skip]]:
    """The trials to train, each once, and what is skipped."""
    waiting: dict[str, ResolvedTrial] = {}
    skips: list[Skip] = []
    faults: list[str] = []
    met: set[str] = set()
    claimed = store.claimed(trials)
    for trial in trials:
        try:
            skip = decide(trial, store, retry_failed, planned=met, claimed=claimed)
        except ConfigError as error:
            faults += error.faults
            continue
        met.add(trial.id)
        if skip:
            skips.append(skip)
        else:
            waiting[trial.id] = _unpruned_if_retried(trial, store)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return list(waiting.values()), skips


def _unpruned_if_retried(trial: ResolvedTrial, store: Store) -> ResolvedTrial:
    """``trial``, without pruning if it is retried: its pack-mates have changed."""
    if not store.has_ended_before(trial):
        return trial
    return replace(trial, config=trial.config.model_copy(update={"pruning": None}))


def summary(plan: Plan, trials: Sequence[ResolvedTrial]) -> str:
    """How many trials there are, and how many of them need no training."""
    why = Counter(skip.why for skip in plan.skips)
    left = why["failed before"] + why["already pruned"]
    return (
        f"{counted(len(trials), 'trial')}: {counted(why['exact duplicate'], 'exact duplicate')} dropped, "
        f"{why['already finished']} already finished, "
        + (f"{left} that failed left alone, " if left else "")
        + f"{len(plan.trials)} to train"
    )


def skipped(plan: Plan, most: int | None = NAMED) -> Iterator[str]:
    """A line for each reason to skip trials, with the names of up to ``most`` of them (None: all)."""
    by_reason: dict[str, list[str]] = {}
    for skip in plan.skips:
        name = skip.trial.label + (f" ({' '.join(skip.detail.split())[:100]})" if skip.detail else "")
        by_reason.setdefault(skip.why, []).append(name)
    for why, names in by_reason.items():
        distinct = list(dict.fromkeys(names))
        shown = distinct if most is None else distinct[:most]
        more = f" and {len(distinct) - len(shown)} more" if len(shown) < len(distinct) else ""
        yield f"  {why}: {', '.join(shown)}{more}"


def about_data(trials: Sequence[ResolvedTrial]) -> list[str]:
    """What the tasks of ``trials`` say about their data, as their records do, each once."""
    tasks = {trial.task: trial.cache_folder for trial in trials}
    return list(dict.fromkeys(note for task, cache in tasks.items() for note in task.build(cache).notes))


def describe(plan: Plan, trials: Sequence[ResolvedTrial]) -> str:
    """The plan in words: what is skipped, and a line for each pack with its size, parameters, memory and time."""
    lines = [summary(plan, trials)]
    packs = Counter(map(_in_words, plan.packs))
    lines += [f"  {count:3d} × {words}" for words, count in packs.items()]
    if plan.packs:
        total = f"about {plan.seconds:.0f} s" if math.isfinite(plan.seconds) else "an unmeasured time"
        lines.append(
            f"{counted(len(plan.packs), 'pack')}, {plan.workers} at once: {total} of training, without evaluations"
        )
        lines.append(f"scores of each test example: {sum(map(scores_bytes, plan.trials)) / 1e6:,.1f} MB at most")
    lines += [f"  not measured: {fault}" for fault in plan.unmeasured]
    lines += [f"  {note}" for note in about_data(trials)]
    return "\n".join([*lines, *skipped(plan, most=None)])


def _in_words(pack: Pack) -> str:
    first = pack.trials[0]
    sizes = sorted({trainable_of(trial) for trial in pack.trials})
    return (
        f"{counted(len(pack.trials), 'trial'):>10} of {first.task.name} ({first.adapter.kind}), "
        f"{counted(pack.steps, 'step')}, training {' or '.join(f'{size:,}' for size in sizes)} "
        f"numbers each, about {pack.memory_bytes / 1e6:,.0f} MB"
        + (f" and {pack.seconds:.1f} s" if math.isfinite(pack.seconds) else "")
    )
