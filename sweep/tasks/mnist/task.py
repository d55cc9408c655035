"""Digits: an MLP that knows upright digits adapts to rotated or inverted ones, or to a single digit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sweep.errors import ConfigError
from sweep.metrics import ACCURACY, LOSS, WRONG
from sweep.models.mlp import MLP
from sweep.rng import drawing_from
from sweep.tasks.mnist.digits import digits
from sweep.tasks.mnist.options import MnistOptions
from sweep.tasks.task import Batch, Examples, Task

MEAN, STD = 0.1307, 0.3081  # of all training pixels scaled to 0…1

Images = tuple[Tensor, Tensor]
"""Images (N, 28, 28), scaled to 0…1, and their labels (N,)."""


@dataclass(frozen=True)
class Mnist(Task):
    """Ten-way classification of 28 × 28 pixels."""

    metrics = (LOSS, ACCURACY, *WRONG)

    hidden: Sequence[int]

    def new_model(self, rng: Generator) -> MLP:
        """784 inputs, the hidden layers, 10 classes."""
        with drawing_from(rng):
            return MLP([28 * 28, *self.hidden, 10])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each row, in nats."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Loss, accuracy, and for each digit how many of it were wrong."""
        right = outputs.argmax(1) == targets
        wrong = {metric.name: ~right & (targets == digit) for digit, metric in enumerate(WRONG)}
        return {LOSS.name: self.loss(outputs, targets), ACCURACY.name: right.float()} | wrong


def mnist(options: MnistOptions, cache_folder: Path) -> Mnist:
    """Read the digits and make both domains. Raises ConfigError where the validation leaves or has no images."""
    train, test = (_pixels(*part) for part in digits(options.data, cache_folder))
    withheld = None
    if options.validation:
        train, withheld = _withheld(train, options.validation)

    def domain(view: Callable[[Images], Images]) -> Examples:
        validation = _standardise(*view(withheld)) if withheld else None
        return Examples(_standardise(*view(train)), _standardise(*view(test)), validation=validation)

    source, target = domain(lambda part: part), domain(lambda part: _shift(part, options))
    if target.validation and not len(target.validation.targets):
        raise ConfigError([f"task.validation = {options.validation}: none of them shows a {options.digit}; give more"])
    return Mnist(source, target, options.hidden, pretraining=options.pretraining)


def _withheld(part: Images, count: int) -> tuple[Images, Images]:
    """``part`` without ``count`` of its images, evenly spaced, and those."""
    images, labels = part
    if count >= len(images):
        raise ConfigError([f"task.validation = {count}: must leave some of the {len(images):,} training images"])
    is_withheld = torch.zeros(len(images), dtype=torch.bool)
    is_withheld[torch.linspace(0, len(images) - 1, count).long()] = True
    return (images[~is_withheld], labels[~is_withheld]), (images[is_withheld], labels[is_withheld])


def _pixels(images: object, labels: object) -> Images:
    return torch.tensor(images).float() / 255, torch.tensor(labels).long()


def _shift(part: Images, options: MnistOptions) -> Images:
    images, labels = part
    match options.shift:
        case "rotate":
            return rotate(images, options.angle), labels
        case "invert":
            return 1 - images, labels
        case "digit":
            chosen = labels == options.digit
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
