"""What a trial costs, measured or from its shapes: the time of an update, memory, trained numbers."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sweep.adapters.fold import Folded, fold, is_within, linear_layers, trains_bias
from sweep.adapters.inits import init_of
from sweep.adapters.rank import rank_of
from sweep.hardware import device_of, threads
from sweep.models.model import Model
from sweep.resolve import ResolvedTrial, meta_model
from sweep.scores import TYPES
from sweep.tasks.task import Task, division_of
from sweep.training.loop import Callbacks, train

PROBE_STEPS = 3
PROBE_S = 0.03
COPIES_OF_PARAMETERS = 7
"""A trained number has a value, two gradients, two moments of Adam and two temporaries."""
COPIES_OF_ACTIVATIONS = 3
EXAMPLE_BYTES = sum(np.dtype(kind).itemsize for kind in TYPES.values())
SUM_BYTES = np.dtype(np.float32).itemsize


def update_s(trials: Sequence[ResolvedTrial], task: Task) -> float:
    """Seconds of one update of ``trials`` packed, on a model that has not been pre-trained: the fastest of several.

    Raises whatever keeps them from being trained.
    """
    adapters = [
        trial.adapter.model_copy(update={"init": "kaiming"}) if trial.adapter.kind == "lora" else trial.adapter
        for trial in trials
    ]
    targets, seeds = [trial.targets for trial in trials], [trial.seed for trial in trials]
    times: list[float] = []
    with threads(1):
        folded = fold(
            untrained(trials[0], task), adapters, targets, seeds, trials[0].padded_rank, saved=trials[0].saved
        )
        while len(times) < PROBE_STEPS - 1 or (sum(times) < PROBE_S and len(times) < 20 * PROBE_STEPS):
            times += update_times(folded, trials, task, PROBE_STEPS - 1)
    return min(times)


def untrained(trial: ResolvedTrial, task: Task) -> Model:
    """The base of ``trial``, but one that would be pre-trained starts at random: values do not matter for speed."""
    return (task.base() or task.new_model(torch.Generator())).to(device_of(trial.config.device))


def update_times(folded: Folded, trials: Sequence[ResolvedTrial], task: Task, count: int) -> list[float]:
    """Seconds of each of ``count`` updates of ``trials``, which are folded; one before them is not timed."""
    ends: list[float] = []
    train_briefly(folded, trials, task, count + 1, lambda step: ends.append(time.perf_counter()))
    return [end - start for start, end in pairwise(ends)]


def train_briefly(
    folded: Folded,
    trials: Sequence[ResolvedTrial],
    task: Task,
    steps: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train ``trials``, which are folded, for a few steps and evaluate nothing."""
    training = trials[0].training.model_copy(update={"steps": steps, "log_every": steps})
    settings, seeds = [trial.optimizer for trial in trials], [trial.seed for trial in trials]
    train(folded, task, task.target, settings, training, seeds, Callbacks(on_step=on_step))


def trainable_of(trial: ResolvedTrial) -> int:
    """How many numbers ``trial`` trains, by the shapes of its model alone."""
    adapter = trial.adapter
    model = meta_model(trial.task, trial.cache_folder)
    if adapter.kind == "full":
        return sum(parameter.numel() for parameter in model.parameters())
    layers, trains_B = linear_layers(model), init_of(adapter).trains_B
    targeted = {name: layers[name] for name in trial.targets}
    factors = sum(
        rank_of(adapter, name) * (layer.in_features + trains_B * layer.out_features) for name, layer in targeted.items()
    )
    magnitudes = sum(layer.out_features for layer in targeted.values()) if adapter.dora else 0
    biases = sum(
        layer.out_features
        for name, layer in layers.items()
        if trains_bias(adapter, layer, name in trial.targets) and not is_within(trial.saved, name)
    )
    return factors + magnitudes + biases + _saved_numbers(trial, model)


def _saved_numbers(trial: ResolvedTrial, model: nn.Module) -> int:
    return sum(parameter.numel() for name in trial.saved for parameter in model.get_submodule(name).parameters())


def scores_bytes(trial: ResolvedTrial) -> int:
    """Bytes on disk of what a finished trial scored on the test examples, at most."""
    task = trial.task.build(trial.cache_folder)
    examples = sum(len(division_of(domain).cluster) for domain in (task.target, task.source))
    means = sum(metric.kind == "mean" for metric in task.metrics)
    return examples * (EXAMPLE_BYTES + means * SUM_BYTES)


def memory_of_one(trial: ResolvedTrial) -> int:
    """Bytes that one more trial adds to a pack: its numbers, and the activations of its rows."""
    task = trial.task.build(trial.cache_folder)
    model = meta_model(trial.task, trial.cache_folder)
    layers = linear_layers(model).values()
    widths = sum(layer.in_features + layer.out_features for layer in layers)
    rows = trial.training.batch_size * task.target.positions
    if trial.adapter.kind == "full":
        parameters = sum(layer.weight.numel() for layer in layers)
    else:
        parameters = trial.padded_rank * widths + _saved_numbers(trial, model)
    copies = COPIES_OF_ACTIVATIONS * (2 if trial.adapter.dora else 1)
    kept = trial.training.keep == "best"
    return 4 * ((COPIES_OF_PARAMETERS + kept) * parameters + copies * rows * widths)
