"""Digits: an MLP that knows upright digits adapts to rotated or inverted ones, or to a single digit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sweep.models.mlp import MLP
from sweep.tasks.data import digits
from sweep.tasks.mnist.options import MnistOptions
from sweep.tasks.task import Batch, Examples, Scores, Task

MEAN, STD = 0.1307, 0.3081  # of all training pixels scaled to 0…1


@dataclass(frozen=True)
class Mnist(Task):
    """Ten-way classification of 28 × 28 pixels."""

    hidden: Sequence[int]

    def new_model(self) -> MLP:
        """784 inputs, the hidden layers, 10 classes."""
        return MLP([28 * 28, *self.hidden, 10])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each row, in nats."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """Loss, accuracy, and for each digit how many of it were wrong."""
        right = outputs.argmax(1) == targets
        counts = {f"wrong_{digit}": ~right & (targets == digit) for digit in range(10)}
        return Scores({"loss": self.loss(outputs, targets), "accuracy": right.float()}, counts)


def mnist(config: MnistOptions, cache_folder: Path) -> Mnist:
    """Read the digits and make both domains."""
    train, test = (_pixels(*part) for part in digits(config.data, cache_folder))
    target_train, target_test = (_shift(part, config) for part in (train, test))
    source, target = (
        Examples(_standardise(*pair[0]), _standardise(*pair[1]))
        for pair in ((train, test), (target_train, target_test))
    )
    return Mnist(source, target, config.hidden, pretraining=config.pretraining)


def _pixels(images: object, labels: object) -> tuple[Tensor, Tensor]:
    return torch.tensor(images).float() / 255, torch.tensor(labels).long()


def _shift(part: tuple[Tensor, Tensor], config: MnistOptions) -> tuple[Tensor, Tensor]:
    images, labels = part
    match config.shift:
        case "rotate":
            return rotate(images, config.angle), labels
        case "invert":
            return 1 - images, labels
        case "digit":
            chosen = labels == config.digit
            return images[chosen], labels[chosen]


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images (N, H, W) counter-clockwise about their centre, bilinearly; what comes in is black."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def _standardise(images: Tensor, labels: Tensor) -> Batch:
    return Batch(((images - MEAN) / STD).flatten(1), labels)
