"""Learning rates: constant, linear or cosine to zero, after a linear warm-up."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sweep.training.options import OptimizerOptions


def factor(setting: OptimizerOptions, step: int, steps: int) -> float:
    """What update ``step`` (1 … steps) multiplies the learning rate by.

    Warm-up rises by equal parts and reaches 1 at update ``warmup_steps``; the decay then begins at 1 and
    would reach 0 one update after the last.
    """
    warmup = setting.warmup_steps
    if step <= warmup:
        return step / warmup
    progress = (step - 1 - warmup) / max(1, steps - warmup)
    match setting.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))


def learning_rates(settings: Sequence[OptimizerOptions], steps: int) -> Tensor:
    """The learning rate of every update and trial, (steps, T, 1) in float64."""
    columns = {
        setting: [setting.lr * factor(setting, step, steps) for step in range(1, steps + 1)]
        for setting in set(settings)
    }
    return torch.tensor([columns[setting] for setting in settings], dtype=torch.float64).T[..., None]
