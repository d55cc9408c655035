"""Points of the plane, labelled by their angle."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import radians, tau

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lora_sweep_example.options import ExampleOptions
from sweep.metrics import ACCURACY, LOSS
from sweep.models.mlp import MLP
from sweep.rng import drawing_from, generator
from sweep.tasks.pretraining import PretrainingOptions
from sweep.tasks.task import Batch, Examples, Task

ROWS = 512
PRETRAINING = PretrainingOptions(steps=300, batch_size=32, lr=1e-2, schedule="constant", seed=0)


@dataclass(frozen=True)
class ExampleTask(Task):
    """A small MLP that has learnt the angles of one circle adapts to those of a turned one."""

    metrics = (LOSS, ACCURACY)

    classes: int

    @classmethod
    def of(cls, options: ExampleOptions) -> "ExampleTask":
        """Draw the points of both domains."""
        rng = generator(0, "example_task")

        def draw(turned: float) -> Batch:
            angles = tau * torch.rand(ROWS, generator=rng)
            points = torch.stack([angles.cos(), angles.sin()], 1)
            return Batch(points, ((angles + turned) % tau * options.classes / tau).long() % options.classes)

        source, target = (Examples(draw(turned), draw(turned)) for turned in (0.0, radians(options.angle)))
        return cls(source, target, options.classes, pretraining=PRETRAINING)

    def new_model(self, rng: Generator) -> MLP:
        """Two hidden layers."""
        with drawing_from(rng):
            return MLP([2, 32, 32, self.classes])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each point."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy, and whether the class is right."""
        return {LOSS.name: self.loss(outputs, targets), ACCURACY.name: (outputs.argmax(1) == targets).float()}
