"""Which trials train together, by what they share, what fits into memory, and what is faster."""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sweep.hardware import available_memory, device_of, is_out_of_memory
from sweep.launch.cost import memory_of_one, update_s
from sweep.packs.pack import Pack
from sweep.resolve import ResolvedTrial

OWN_SETTINGS = {"lr", "lr_ratio", "weight_decay", "schedule", "warmup_steps", "clip_norm"}
"""Settings of the optimizer in which the trials of a pack may differ."""
WORTH_PROBING_S = 2.0
WORTH_DIVIDING_S = 4.0
"""Estimated work of all packs, in seconds, from which on they are divided among the workers."""
LARGEST_SHARE_OF_TIME = 0.9
"""A bigger pack must take less than this fraction of the time for each trial, or the smaller one is kept."""
LONG_UPDATE_S = 0.5
"""Seconds of an update of one trial from which on it is all arithmetic: a bigger pack would do no less of it."""
LATEST_END = 1.1
"""The last worker may end this much later than if all ended together, before packs are made smaller."""
SHARE_OF_MEMORY = 0.5
"""The part of the free memory that all packs together may use."""


def into_packs(
    trials: Sequence[ResolvedTrial],
    max_pack: int,
    workers: int,
    room: float | None = None,
    start_s: float = 0.0,
    on_fault: Callable[[str], None] = lambda fault: None,
) -> list[Pack]:
    """Group the trials into packs, the longest first.

    A pack grows by measurement: a few updates of 1, 4, 16, … trials, until a bigger pack no longer pays, memory
    for ``workers`` packs at once runs out, or ``max_pack`` is reached. Then the longest are made smaller,
    until all workers end at about the same time.

    Args:
        trials: what to train.
        max_pack: trials in a pack at most.
        workers: how many packs run at once.
        room: bytes that the trials of one pack may fill; None shares this machine's memory among the workers.
        start_s: seconds that a pack takes to start; none is made for less work than that.
        on_fault: called with what kept a pack from being measured, unless it was too large for the memory.

    """
    by_key: dict[Hashable, list[ResolvedTrial]] = defaultdict(list)
    for trial in trials:
        by_key[_key(trial), trial.config.pruning].append(trial)
    sizing = _Sizing(max_pack, workers, room, on_fault)
    groups = [sizing.group(alike) for alike in by_key.values()]
    if math.fsum(group.work for group in groups) > WORTH_DIVIDING_S:
        _divide(groups, workers, start_s)
    return sorted((pack for group in groups for pack in group.packs()), key=lambda pack: -pack.work)


@dataclass
class _Group:
    """Trials that may train together, in packs of at most ``size``; ``each_s`` is one update of one of them."""

    trials: Sequence[ResolvedTrial]
    each_s: float
    memory_bytes: int
    size: int
    parts: int = field(init=False)

    def __post_init__(self) -> None:
        self.parts = math.ceil(len(self.trials) / self.size)

    @property
    def work(self) -> float:
        return Pack(tuple(self.trials), self.each_s * len(self.trials), 0).work

    def may_have_more_parts(self, start_s: float) -> bool:
        pruned = self.trials[0].config.pruning  # its trials are compared within a pack
        return not pruned and self.parts < len(self.trials) and self.work / (self.parts + 1) >= start_s

    def packs(self) -> list[Pack]:
        bounds = [len(self.trials) * part // self.parts for part in range(self.parts + 1)]
        if self.trials[0].config.pruning:  # full ones, so that what is left of a broken sweep falls into the same packs
            bounds = [*range(0, len(self.trials), self.size), len(self.trials)]
        parts = [tuple(self.trials[start:end]) for start, end in pairwise(bounds)]
        return [Pack(part, self.each_s * len(part), self.memory_bytes * len(part)) for part in parts]


def _divide(groups: Sequence[_Group], workers: int, start_s: float) -> None:
    """Divide the groups into more parts, until the workers end at about the same time."""
    share = math.fsum(group.work for group in groups) / workers
    while (
        _makespan([group.work / group.parts for group in groups for _ in range(group.parts)], workers)
        > LATEST_END * share
    ):
        longest = max(groups, key=lambda group: group.work / group.parts)
        if not longest.may_have_more_parts(start_s):
            break
        longest.parts += 1


def _makespan(works: Sequence[float], workers: int) -> float:
    """When the last worker ends, if each takes the longest pack that is left."""
    ends = [0.0] * workers
    for work in sorted(works, reverse=True):
        heapq.heapreplace(ends, ends[0] + work)
    return max(ends)


def _key(trial: ResolvedTrial) -> Hashable:
    """What the trials of a pack have in common.

    Only LoRAs whose layers would do the same arithmetic alone share a pack, so that packing changes no bit of a result.
    """
    adapter = trial.adapter
    shared = trial.optimizer.model_dump_json(exclude=OWN_SETTINGS)
    common = (trial.task, trial.data, trial.training, shared, adapter.kind)
    match adapter.kind:
        case "lora":
            return (*common, trial.padded_rank, *adapter.arithmetic)
        case "none":
            return (trial.task, trial.data, adapter.kind)
        case "full":
            return common


class _Sizing:
    """Finds how many trials a pack may have.

    For groups that differ in nothing but their rank, the search begins with the best size of the last one, and
    stops there if a larger one was not faster.
    """

    def __init__(self, max_pack: int, workers: int, room: float | None, on_fault: Callable[[str], None]):
        self._max_pack, self._workers, self._room, self._on_fault = max_pack, workers, room, on_fault
        self._best_and_largest: dict[Hashable, tuple[int, int]] = {}

    def group(self, trials: Sequence[ResolvedTrial]) -> _Group:
        """Measure trials that may train together."""
        first, device = trials[0], device_of(trials[0].config.device)
        memory = memory_of_one(first)
        room = SHARE_OF_MEMORY * available_memory(device) / self._workers if self._room is None else self._room
        fitting = max(1, min(self._max_pack, int(room / memory)))
        limit = size = min(len(trials), 1 if first.adapter.runs_alone else fitting)
        each_s = math.nan
        if first.config.pruning and first.adapter.kind != "none":
            each_s = self._update_s(trials[:1])
        elif len(trials) > 1 and first.adapter.kind != "none":
            kind = (first.task, first.training, first.optimizer.name, first.adapter.kind, *first.adapter.arithmetic)
            start, largest = self._best_and_largest.get(kind, (1, self._max_pack))
            size, each_s = self._best_size(trials, start, min(limit, largest))
            self._best_and_largest[kind] = size, (size if size < limit else largest)
        return _Group(trials, each_s, memory, size)

    def _best_size(self, trials: Sequence[ResolvedTrial], start: int, limit: int) -> tuple[int, float]:
        """The best size from ``start`` to ``limit``, and the seconds of one update for each trial in such a pack."""
        size = min(start, limit)
        each_s = self._update_s(trials[:size]) / size
        if math.isnan(each_s) and size > 1:
            return self._best_size(trials, 1, limit)
        if each_s * trials[0].training.steps * len(trials) < WORTH_PROBING_S:
            return limit, each_s
        while size < limit and each_s < LONG_UPDATE_S:  # NaN is not
            bigger = min(4 * size, limit)
            bigger_each_s = self._update_s(trials[:bigger]) / bigger
            if not bigger_each_s <= LARGEST_SHARE_OF_TIME * each_s:  # NaN gains nothing
                break
            size, each_s = bigger, bigger_each_s
        return size, each_s

    def _update_s(self, trials: Sequence[ResolvedTrial]) -> float:
        """Seconds of one update of ``trials``; NaN where they cannot be trained: they will fail where they are."""
        try:
            return update_s(trials, trials[0].task.build(trials[0].cache_folder))
        except Exception as error:
            if not is_out_of_memory(error):
                self._on_fault(f"{trials[0].label}: {type(error).__name__}: {error}")
            return math.nan
