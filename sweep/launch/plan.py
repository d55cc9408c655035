"""Which trials train together: the plan of a sweep, by what they share, what fits, and what gains."""

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from sweep.adapters.rank import bucket, widest
from sweep.hardware import available_memory, device_of
from sweep.launch.cost import memory_of_one, update_s
from sweep.packs.pack import Pack
from sweep.resolve import ResolvedTrial
from sweep.tasks.task import Task
from sweep.trial import Trial

OWN_SETTINGS = {"lr", "lr_ratio", "weight_decay", "schedule", "warmup_steps", "clip_norm"}
WORTH_PROBING_S = 2.0
WORTH_WORKERS_S = 4.0
"""Estimated work below which starting processes costs more than it saves."""
GAIN = 0.9
"""A bigger pack must take less than this fraction of the time for each trial, or the smaller one is kept."""
IDLE = 1.1
"""The last worker may end this much later than if all ended together, before packs are made smaller."""
MEMORY_SHARE = 0.5


def plan(
    trials: Sequence[ResolvedTrial], max_pack: int, workers: int, room: float | None = None, start_s: float = 0.0
) -> list[Pack]:
    """Group the trials into packs, the longest first.

    A pack grows by measurement: a few updates of 1, 4, 16, … trials, until a bigger pack no longer pays, memory
    for ``workers`` packs at once would run out, or ``max_pack`` is reached. Then the longest are made smaller,
    until all workers end at about the same time.

    Args:
        trials: what to train.
        max_pack: trials in a pack at most.
        workers: how many packs run at once.
        room: bytes that the trials of one pack may fill; None shares this machine's memory among the workers.
        start_s: seconds that a pack takes to start; none is made for less work than that.

    """
    by_key: dict[Hashable, list[ResolvedTrial]] = defaultdict(list)
    for trial in trials:
        by_key[_key(trial), trial.config.pruning].append(trial)
    sizes: dict[Hashable, tuple[int, int]] = {}
    groups = [_measured(group, max_pack, workers, room, sizes) for group in by_key.values()]
    if math.fsum(group.work for group in groups) > WORTH_WORKERS_S:
        _spread(groups, workers, start_s)
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


def _spread(groups: Sequence[_Group], workers: int, start_s: float) -> None:
    """Divide the groups into more parts, until the workers end at about the same time."""
    share = math.fsum(group.work for group in groups) / workers
    while _makespan([group.work / group.parts for group in groups for _ in range(group.parts)], workers) > IDLE * share:
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


def _key(trial: Trial) -> Hashable:
    """What the trials of a pack have in common.

    Rank bucket, DoRA, bias and dropout decide which arithmetic a layer does; only trials that would do the same
    alone share it, so that packing changes no bit of a result.
    """
    adapter = trial.adapter
    shared = trial.optimizer.model_dump_json(exclude=OWN_SETTINGS)
    common = (trial.task, trial.data, trial.training, shared, adapter.kind)
    match adapter.kind:
        case "lora":
            return (*common, bucket(widest(adapter)), adapter.dora, adapter.bias, bool(adapter.dropout), adapter.save)
        case "none":
            return (trial.task, trial.data, adapter.kind)
        case "full":
            return common


def _measured(
    trials: Sequence[ResolvedTrial],
    max_pack: int,
    workers: int,
    room: float | None,
    sizes: dict[Hashable, tuple[int, int]],
) -> _Group:
    """Find how many of ``trials`` a pack may have.

    ``sizes`` remembers, for their like of another rank, which size paid, and which is the largest to try.
    """
    trial, task = trials[0], trials[0].task.build(trials[0].cache_folder)
    device, memory = device_of(trials[0].config.device), memory_of_one(trials[0])
    fitting = int((MEMORY_SHARE * available_memory(device) / workers if room is None else room) / memory)
    limit = size = min(len(trials), 1 if trial.adapter.runs_alone else max(1, min(max_pack, fitting)))
    each_s = math.nan
    if trials[0].config.pruning and trial.adapter.kind != "none":
        each_s = update_s(trials[:1], task, device)
    elif len(trials) > 1 and trial.adapter.kind != "none":
        alike = (trial.task, trial.training, trial.optimizer.name, trial.adapter.kind, trial.adapter.dora)
        start, most = sizes.get(alike, (1, max_pack))
        size, each_s = _best_size(trials, start, min(limit, most), task, device)
        sizes[alike] = size, (size if size < limit else most)
    return _Group(trials, each_s, memory, size)


def _best_size(
    trials: Sequence[ResolvedTrial], start: int, limit: int, task: Task, device: torch.device
) -> tuple[int, float]:
    """The size from ``start`` to ``limit`` that a pack should have, and the seconds of one update for each trial in it."""
    size = min(start, limit)
    each_s = update_s(trials[:size], task, device) / size
    if math.isnan(each_s) and size > 1:
        return _best_size(trials, 1, limit, task, device)
    if each_s * trials[0].training.steps * len(trials) < WORTH_PROBING_S:
        return limit, each_s
    while size < limit and not math.isnan(each_s):
        bigger = min(4 * size, limit)
        bigger_each_s = update_s(trials[:bigger], task, device) / bigger
        if not bigger_each_s <= GAIN * each_s:  # NaN is no gain
            break
        size, each_s = bigger, bigger_each_s
    return size, each_s
