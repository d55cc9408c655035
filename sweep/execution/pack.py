"""Which trials train together: the plan of a sweep, by what they share, what fits, and what gains."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from sweep.adapters.fold import Folded, bucket, fold, is_within, linear_layers, trains_bias
from sweep.adapters.init import FREEZE_B
from sweep.execution.job import Job
from sweep.execution.resolve import device_of, meta_model
from sweep.execution.threads import threads
from sweep.tasks.registry import build
from sweep.tasks.task import Task
from sweep.training.loop import train
from sweep.trial import Trial

OWN_SETTINGS = {"lr", "lr_ratio", "weight_decay", "schedule", "warmup_steps", "clip_norm"}
PROBE_STEPS = 3
PROBE_S = 0.1
WORTH_PROBING_S = 2.0
WORTH_WORKERS_S = 4.0
"""Estimated work below which starting processes costs more than it saves."""
TRIAL_S = 0.03
"""What a trial costs besides its training: opening and closing its W&B run, and its record."""
GAIN = 0.9
"""A bigger pack must take less than this fraction of the time for each trial, or the smaller one is kept."""
MEMORY_SHARE = 0.5
COPIES_OF_PARAMETERS = 7
"""A trained number has a value, two gradients, two moments of Adam and two temporaries."""
COPIES_OF_ACTIVATIONS = 3


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

    Within a group the pack grows by measurement: a few updates of 1, 4, 16, … trials, until a bigger pack no
    longer pays, memory for ``workers`` packs at once would run out, or ``max_pack`` is reached.

    Args:
        jobs: what to train.
        max_pack: trials in a pack at most.
        workers: how many packs run at once; a long group is spread over all of them.
        room: bytes that the trials of one pack may fill; None shares this machine's memory among the workers.
        start_s: seconds that a pack takes to start; none is made for less work than that.

    """
    groups: dict[Hashable, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[_key(job.trial)].append(job)
    packs = [pack for group in groups.values() for pack in _divide(group, max_pack, workers, room, start_s)]
    return sorted(packs, key=lambda pack: -pack.work)


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


def _divide(group: Sequence[Job], max_pack: int, workers: int, room: float | None, start_s: float) -> list[Pack]:
    kind, task = group[0].trial.adapter.kind, build(group[0].trial.task, group[0].cache_folder)
    device = device_of(group[0].config.device)
    memory = _memory_of_one(group[0])
    fitting = int((MEMORY_SHARE * available_memory(device) / workers if room is None else room) / memory)
    limit = 1 if group[0].trial.adapter.runs_alone else max(1, min(max_pack, fitting))
    size, step_s = min(limit, len(group)), math.nan
    if group[0].config.pruning and kind != "none":
        step_s = _probe(group[:1], task, device)  # trials are compared within a pack: it holds all that fit
    elif len(group) > 1 and kind != "none":
        size, step_s = _best_size(group, limit, task, device)
        if Pack(tuple(group), step_s * len(group), 0).work > WORTH_WORKERS_S:
            worth_starting = math.ceil(start_s / Pack(tuple(group[:1]), step_s, 0).work)
            size = min(size, max(worth_starting, math.ceil(len(group) / workers)))
    parts = [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    return [Pack(part, step_s * len(part), memory * len(part)) for part in parts]


def _best_size(group: Sequence[Job], limit: int, task: Task, device: torch.device) -> tuple[int, float]:
    """The pack size to use, and the seconds of one update for each trial in it."""
    steps = group[0].trial.training.steps
    size, each_s = 1, _probe(group[:1], task, device)
    if each_s * steps * len(group) < WORTH_PROBING_S:
        return min(limit, len(group)), each_s
    while size < min(limit, len(group)) and not math.isnan(each_s):
        bigger = min(4 * size, limit, len(group))
        bigger_each_s = _probe(group[:bigger], task, device) / bigger
        if not bigger_each_s <= GAIN * each_s:  # NaN is no gain
            break
        size, each_s = bigger, bigger_each_s
    return size, each_s


def _probe(jobs: Sequence[Job], task: Task, device: torch.device) -> float:
    """Seconds of one update of ``jobs`` packed, as ``_measured``; NaN where they cannot be trained.

    For lack of memory, or for a fault of their own: they are left to fail where they are trained.
    """
    try:
        return _measured(jobs, task, device)
    except Exception:
        return math.nan


def _measured(jobs: Sequence[Job], task: Task, device: torch.device) -> float:
    """Seconds of one update of ``jobs`` packed, on a model that has not been pre-trained: the fastest of several."""
    trials = [job.trial for job in jobs]
    training = trials[0].training.model_copy(update={"steps": PROBE_STEPS})
    ends: list[float] = []
    with threads(1):
        folded = _fold_untrained(jobs, task, device)
        settings, seeds = [trial.optimizer for trial in trials], [trial.seed for trial in trials]
        while len(ends) < PROBE_STEPS or (ends[-1] - ends[0] < PROBE_S and len(ends) < 20 * PROBE_STEPS):
            train(
                folded, task, task.target, settings, training, seeds, on_step=lambda _: ends.append(time.perf_counter())
            )
    return min(end - start for start, end in pairwise(ends))


def _fold_untrained(jobs: Sequence[Job], task: Task, device: torch.device) -> Folded:
    """The pack's model with adapters, and where need be a base, that start at random: values do not matter for speed."""
    adapters = [
        job.trial.adapter.model_copy(update={"init": "kaiming"}) if job.trial.adapter.kind == "lora" else job.trial.adapter
        for job in jobs
    ]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = (task.base() or task.new_model()).to(device)
    targets, seeds = [job.resolved.targets for job in jobs], [job.trial.seed for job in jobs]
    return fold(model, adapters, targets, seeds, saved=jobs[0].resolved.saved)


def trainable_of(job: Job) -> int:
    """How many numbers the trial of ``job`` trains, by the shapes of its model alone."""
    adapter = job.trial.adapter
    model = meta_model(job.trial.task, job.cache_folder)
    if adapter.kind == "full":
        return sum(parameter.numel() for parameter in model.parameters())
    layers = linear_layers(model)
    targeted = {name: layers[name] for name in job.resolved.targets}
    factors = sum(
        adapter.rank_of(name) * (layer.in_features + (0 if adapter.init in FREEZE_B else layer.out_features))
        for name, layer in targeted.items()
    )
    magnitudes = sum(layer.out_features for layer in targeted.values()) if adapter.dora else 0
    biases = sum(
        layer.out_features
        for name, layer in layers.items()
        if trains_bias(adapter, layer, name in job.resolved.targets) and not is_within(job.resolved.saved, name)
    )
    return factors + magnitudes + biases + _saved_numbers(job, model)


def _saved_numbers(job: Job, model: nn.Module) -> int:
    return sum(parameter.numel() for name in job.resolved.saved for parameter in model.get_submodule(name).parameters())


def _memory_of_one(job: Job) -> int:
    """Bytes that one more trial adds to a pack: its numbers, and the activations of its rows."""
    trial, task = job.trial, build(job.trial.task, job.cache_folder)
    model = meta_model(trial.task, job.cache_folder)
    layers = linear_layers(model).values()
    widths = sum(layer.in_features + layer.out_features for layer in layers)
    positions = task.target.held_out.positions
    rows = trial.training.batch_size * positions
    if trial.adapter.kind == "full":
        parameters = sum(layer.weight.numel() for layer in layers)
    else:
        parameters = bucket(trial.adapter.widest) * widths + _saved_numbers(job, model)
    copies = COPIES_OF_ACTIVATIONS * (2 if trial.adapter.dora else 1)
    return 4 * (COPIES_OF_PARAMETERS * parameters + copies * rows * widths)


def available_memory(device: torch.device) -> int:
    """Bytes that are free on ``device``."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
