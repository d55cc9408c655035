"""Which trials train together: the plan of a sweep, by what they share, what fits, and what gains."""

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from sweep.adapters.fold import bucket
from sweep.execution.estimate import available_memory, memory_of_one, update_s
from sweep.execution.job import Job
from sweep.execution.resolve import device_of
from sweep.tasks.registry import build
from sweep.tasks.task import Task
from sweep.trial import Trial

OWN_SETTINGS = {"lr", "lr_ratio", "weight_decay", "schedule", "warmup_steps", "clip_norm"}
WORTH_PROBING_S = 2.0
WORTH_WORKERS_S = 4.0
"""Estimated work below which starting processes costs more than it saves."""
TRIAL_S = 0.03
"""What a trial costs besides its training: opening and closing its W&B run, and its record."""
GAIN = 0.9
"""A bigger pack must take less than this fraction of the time for each trial, or the smaller one is kept."""
IDLE = 1.1
"""The last worker may end this much later than if all ended together, before packs are made smaller."""
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Pack:
    """Trials that train together. ``step_s`` is one update of all of them, in seconds; NaN when not measured."""

    jobs: tuple[Job, ...]
    step_s: float
    memory_bytes: int

    @property
    def steps(self) -> int:
        """Updates of each trial; the untouched base has none."""
        trial = self.jobs[0].trial
        return 0 if trial.adapter.kind == "none" else trial.training.steps

    @property
    def seconds(self) -> float:
        """Estimated training time."""
        return self.step_s * self.steps if self.steps else 0.0

    @property
    def work(self) -> float:
        """Estimated seconds of everything that is known to take time, to decide about worker processes."""
        training = self.seconds if math.isfinite(self.seconds) else 0.0
        return training + TRIAL_S * len(self.jobs)

    def halves(self) -> tuple["Pack", "Pack"]:
        """The same trials in two packs."""
        middle = len(self.jobs) // 2
        first, second = self.jobs[:middle], self.jobs[middle:]
        return tuple(Pack(half, self.step_s / 2, self.memory_bytes // 2) for half in (first, second))  # type: ignore[return-value]


def plan(
    jobs: Sequence[Job], max_pack: int, workers: int, room: float | None = None, start_s: float = 0.0
) -> list[Pack]:
    """Group the jobs into packs, the longest first.

    A pack grows by measurement: a few updates of 1, 4, 16, … trials, until a bigger pack no longer pays, memory
    for ``workers`` packs at once would run out, or ``max_pack`` is reached. Then the longest are made smaller,
    until all workers end at about the same time.

    Args:
        jobs: what to train.
        max_pack: trials in a pack at most.
        workers: how many packs run at once.
        room: bytes that the trials of one pack may fill; None shares this machine's memory among the workers.
        start_s: seconds that a pack takes to start; none is made for less work than that.

    """
    by_key: dict[Hashable, list[Job]] = defaultdict(list)
    for job in jobs:
        by_key[_key(job.trial), job.config.pruning].append(job)
    sizes: dict[Hashable, tuple[int, int]] = {}
    groups = [_measured(group, max_pack, workers, room, sizes) for group in by_key.values()]
    if math.fsum(group.work for group in groups) > WORTH_WORKERS_S:
        _spread(groups, workers, start_s)
    return sorted((pack for group in groups for pack in group.packs()), key=lambda pack: -pack.work)


@dataclass
class _Group:
    """Trials that may train together, in packs of at most ``size``; ``each_s`` is one update of one of them."""

    jobs: Sequence[Job]
    each_s: float
    memory_bytes: int
    size: int
    parts: int = field(init=False)

    def __post_init__(self) -> None:
        self.parts = math.ceil(len(self.jobs) / self.size)

    @property
    def work(self) -> float:
        return Pack(tuple(self.jobs), self.each_s * len(self.jobs), 0).work

    def may_have_more_parts(self, start_s: float) -> bool:
        pruned = self.jobs[0].config.pruning  # its trials are compared within a pack
        return not pruned and self.parts < len(self.jobs) and self.work / (self.parts + 1) >= start_s

    def packs(self) -> list[Pack]:
        bounds = [len(self.jobs) * part // self.parts for part in range(self.parts + 1)]
        if self.jobs[0].config.pruning:  # full ones, so that what is left of a broken sweep falls into the same packs
            bounds = [*range(0, len(self.jobs), self.size), len(self.jobs)]
        parts = [tuple(self.jobs[start:end]) for start, end in pairwise(bounds)]
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
            return (*common, bucket(adapter.widest), adapter.dora, adapter.bias, bool(adapter.dropout), adapter.save)
        case "none":
            return (trial.task, trial.data, adapter.kind)
        case "full":
            return common


def _measured(
    jobs: Sequence[Job], max_pack: int, workers: int, room: float | None, sizes: dict[Hashable, tuple[int, int]]
) -> _Group:
    """Find how many of ``jobs`` a pack may have.

    ``sizes`` remembers, for their like of another rank, which size paid, and which is the largest to try.
    """
    trial, task = jobs[0].trial, build(jobs[0].trial.task, jobs[0].cache_folder)
    device, memory = device_of(jobs[0].config.device), memory_of_one(jobs[0])
    fitting = int((MEMORY_SHARE * available_memory(device) / workers if room is None else room) / memory)
    limit = size = min(len(jobs), 1 if trial.adapter.runs_alone else max(1, min(max_pack, fitting)))
    each_s = math.nan
    if jobs[0].config.pruning and trial.adapter.kind != "none":
        each_s = update_s(jobs[:1], task, device)
    elif len(jobs) > 1 and trial.adapter.kind != "none":
        alike = (trial.task, trial.training, trial.optimizer.name, trial.adapter.kind, trial.adapter.dora)
        start, most = sizes.get(alike, (1, max_pack))
        size, each_s = _best_size(jobs, start, min(limit, most), task, device)
        sizes[alike] = size, (size if size < limit else most)
    return _Group(jobs, each_s, memory, size)


def _best_size(jobs: Sequence[Job], start: int, limit: int, task: Task, device: torch.device) -> tuple[int, float]:
    """The size from ``start`` to ``limit`` that a pack should have, and the seconds of one update for each trial in it."""
    size = min(start, limit)
    each_s = update_s(jobs[:size], task, device) / size
    if math.isnan(each_s) and size > 1:
        return _best_size(jobs, 1, limit, task, device)
    if each_s * jobs[0].trial.training.steps * len(jobs) < WORTH_PROBING_S:
        return limit, each_s
    while size < limit and not math.isnan(each_s):
        bigger = min(4 * size, limit)
        bigger_each_s = update_s(jobs[:bigger], task, device) / bigger
        if not bigger_each_s <= GAIN * each_s:  # NaN is no gain
            break
        size, each_s = bigger, bigger_each_s
    return size, each_s
