"""How fast each kind of trial is alone, measured before anything trains: the only speed that may be compared.

Two trials are of one kind where their updates do the same arithmetic on the same shapes; rate, schedule and seed change
none of it. So the seeds of a sweep are repeated measurements of its kinds: a round for each seed times all kinds in
turn, and what slows the machine down for a while slows all of them.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol, TypeVar

from sweep.adapters.inits import init_of
from sweep.engines.warm_up import wait_until_warm
from sweep.hardware import device_of
from sweep.launch.bench import Bench
from sweep.launch.cost import untrained
from sweep.launch.packing import OWN_SETTINGS
from sweep.launch.plan import Plan
from sweep.metrics import ALONE
from sweep.models.model import Model
from sweep.packs.pack import Pack
from sweep.record import COMPARABLE
from sweep.resolve import ResolvedTrial
from sweep.store.environment import environment
from sweep.store.skip import Skip

log = logging.getLogger(__name__)

LEAST_UPDATES = 3
"""Timed updates of a kind, over all rounds."""
OTHER_UPDATES = 4
"""Updates of a kind that are not timed, if there is one round: they make it warm."""
MOST_S = 3.0
"""Seconds for a kind, over all rounds."""
SHARE = 0.1
"""The part of the planned training that all measurements together may take."""
DURATION = {"steps", "epochs", "log_every", "eval_every"}
"""Settings of the training that do not change an update."""

K = TypeVar("K", bound=Hashable)
Kind = Hashable
Perf = Mapping[str, float]
Speeds = dict[tuple[Kind, int], Perf]
"""The figures of a kind at a seed, as ``perf`` of a record holds them."""


class Timed(Protocol):
    """What can be timed: ``update_s`` is about one update, ``update_times(n)`` measures n of them, in seconds."""

    update_s: float

    def update_times(self, count: int) -> list[float]:
        """Seconds of each of ``count`` updates."""


def kind_of(trial: ResolvedTrial) -> Kind:
    """What decides the cost of an update of ``trial``: trials of equal kind are equally fast alone."""
    adapter, optimizer = trial.adapter, trial.optimizer
    common = (
        trial.task,
        device_of(trial.config.device),
        trial.training.model_dump_json(exclude=DURATION),
        optimizer.model_dump_json(exclude=OWN_SETTINGS),
        optimizer.clip_norm is None,
        adapter.kind,
    )
    if adapter.kind != "lora":
        return common
    init = init_of(adapter)
    return (*common, trial.padded_rank, trial.targets, *adapter.arithmetic, init.moves_base, init.trains_B)


def with_speeds(packs: Sequence[Pack], plan: Plan) -> list[Pack]:
    """The same packs with each trial's speed alone where there was time to measure it; the log says where there was not.

    What a record of the sweep has for a kind at a seed, measured on this machine, is not measured again.
    """
    trials = [trial for pack in packs if pack.steps for trial in pack.trials]
    if not trials:
        return list(packs)
    speeds = _recorded(plan.skips, environment(device_of(trials[0].config.device), base=""))
    kinds = {trial.id: kind_of(trial) for trial in trials}
    rounds: dict[int, dict[Kind, ResolvedTrial]] = defaultdict(dict)
    for trial in trials:
        if (kinds[trial.id], trial.seed) not in speeds:
            rounds[trial.seed].setdefault(kinds[trial.id], trial)
    if any(skip.why == "trained by another launch" for skip in plan.skips):
        log.info("no speed of trials alone is measured: another launch trains at the same time")
    elif rounds:
        speeds |= _measured(rounds, packs, plan.workers)
    known = {trial.id: perf for trial in trials if (perf := speeds.get((kinds[trial.id], trial.seed)))}
    return [replace(pack, trials=tuple(_knowing(trial, known) for trial in pack.trials)) for pack in packs]


def timed_rounds(
    rounds: Mapping[int, Sequence[K]],
    timed: Mapping[K, Timed],
    end: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, dict[K, list[float]]]:
    """Time updates of the kinds of each round in turn, one after an update that is not timed, until the time is up.

    Args:
        rounds: the kinds at each seed.
        timed: what to time, by kind.
        end: when everything is to be done, on the ``clock``.
        clock: gives the time in seconds.

    Returns:
        Seconds of the updates of each kind at each seed whose round ended in time; nothing for a kind with fewer
        than ``LEAST_UPDATES`` in all.

    """
    done: dict[int, dict[K, list[float]]] = {}
    occurrences = Counter(chain.from_iterable(rounds.values()))
    least = {kind: math.ceil(LEAST_UPDATES / count) for kind, count in occurrences.items()}
    for number, (seed, kinds) in enumerate(rounds.items()):
        each_s = min(MOST_S / len(rounds), (end - clock()) / (len(rounds) - number) / len(kinds))
        counts = {kind: max(least[kind], int(each_s / timed[kind].update_s) - 1) for kind in kinds}
        if clock() + math.fsum((counts[kind] + 1) * timed[kind].update_s for kind in kinds) > end:
            break
        turn = number % len(kinds)
        done[seed] = {kind: timed[kind].update_times(counts[kind]) for kind in (*kinds[turn:], *kinds[:turn])}
    enough = {kind for kind in timed if len(_all_times(done, kind)) >= LEAST_UPDATES}
    return {seed: {kind: times for kind, times in own.items() if kind in enough} for seed, own in done.items()}


def _all_times(done: Mapping[int, Mapping[K, list[float]]], kind: K) -> list[float]:
    return [one for own in done.values() for one in own.get(kind, ())]


def _recorded(skips: Sequence[Skip], here: Mapping[str, Any]) -> Speeds:
    """What the records of skipped trials say of their speed alone, where they are of the environment ``here``."""
    names = [metric.name.removeprefix("perf/") for metric in ALONE]
    return {
        (kind_of(skip.trial), skip.trial.seed): perf
        for skip in skips
        if skip.record and all(skip.record.environment.get(key) == here[key] for key in COMPARABLE)
        if (perf := {name: skip.record.perf[name] for name in names if name in skip.record.perf})
    }


def _knowing(trial: ResolvedTrial, known: Mapping[str, Perf]) -> ResolvedTrial:
    return replace(trial, alone=known[trial.id]) if trial.id in known else trial


def _measured(rounds: Mapping[int, Mapping[Kind, ResolvedTrial]], packs: Sequence[Pack], workers: int) -> Speeds:
    """The figures of each kind at each seed, as far as there is time."""
    if workers > 1:
        wait_until_warm()  # they import on the other cores, which slows this one down
    began = time.perf_counter()
    first = {kind: trial for kinds in rounds.values() for kind, trial in kinds.items()}
    updates = sum(pack.steps * len(pack.trials) for pack in packs) / workers
    benches = _benches(first) if SHARE * updates >= (OTHER_UPDATES + LEAST_UPDATES) * len(first) else {}
    planned_s = math.fsum(_seconds(pack, benches) for pack in packs) / workers
    usable = {seed: [kind for kind in kinds if kind in benches] for seed, kinds in rounds.items()}
    done = timed_rounds({seed: kinds for seed, kinds in usable.items() if kinds}, benches, began + SHARE * planned_s)
    measured = sum(map(bool, done.values()))
    if measured < len(rounds):
        how = f"measured at only {measured} of {len(rounds)} seeds" if measured else "not measured"
        log.info("the speed of trials alone is %s: a tenth of the planned training allows no more", how)
    return {
        (kind, seed): benches[kind].perf(times, _all_times(done, kind))
        for seed, own in done.items()
        for kind, times in own.items()
    }


def _seconds(pack: Pack, benches: Mapping[Kind, Bench]) -> float:
    """The planned training of a pack; one that the planner did not measure trains its trials one by one."""
    if math.isfinite(pack.seconds):
        return pack.seconds
    known = (benches.get(kind_of(trial)) for trial in pack.trials)
    return math.fsum(pack.steps * bench.update_s for bench in known if bench)


def _benches(trials: Mapping[Kind, ResolvedTrial]) -> dict[Kind, Bench]:
    """A bench for each kind that can be trained alone; those of one task share their base."""
    models: dict[Hashable, Model] = {}
    benches: dict[Kind, Bench] = {}
    for kind, trial in trials.items():
        base = (trial.task, device_of(trial.config.device))
        try:
            if base not in models:
                models[base] = untrained(trial, trial.task.build(trial.cache_folder))
            benches[kind] = Bench(trial, models[base])
        except Exception as error:
            log.warning("the speed of %s alone cannot be measured: %s: %s", trial.label, type(error).__name__, error)
    return benches
