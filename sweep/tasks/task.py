"""The interface of a task: a base to start from, two domains, a loss and scores for every row.

Shapes: N rows of all trials, trial-major; every value is for one row, so trials never see each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from sweep.adapters.fold import Folded
from sweep.adapters.options import AdapterOptions
from sweep.models.model import Model
from sweep.tasks.options import PretrainingOptions

GATHERED_BATCHES = 16
"""Batches whose rows are taken out of the data in one piece: many small pieces take longer."""


class Batch(NamedTuple):
    """Inputs and targets, both with the rows first."""

    inputs: Tensor
    targets: Tensor

    @property
    def positions(self) -> int:
        """Predictions of one row: a token at each place of a window, otherwise one, however many numbers it has."""
        return 1 if self.targets.is_floating_point() else self.targets[0].numel()

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        return Batch(self.inputs.to(device), self.targets.to(device))


class Domain(Protocol):
    """One data distribution: batches to train on and held-out rows to evaluate on."""

    @property
    def held_out(self) -> Batch:
        """Rows that training never sees."""

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        """Endless batches of ``rows`` rows, in an order that ``rng`` decides."""


class Scores(NamedTuple):
    """Values of each row (N,): ``means`` are averaged over a domain, ``counts`` are summed."""

    means: Mapping[str, Tensor]
    counts: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Examples:
    """A domain of separate examples, each seen once an epoch in a new order."""

    train: Batch
    held_out: Batch

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        """Batches from one endless chain of shuffled epochs; a batch may span two of them."""
        left = torch.empty(0, dtype=torch.long)
        while True:
            while len(left) < rows:
                left = torch.cat([left, torch.randperm(len(self.train.inputs), generator=rng)])
            chosen = left[: min(len(left) // rows, GATHERED_BATCHES) * rows]
            left = left[len(chosen) :]
            inputs, targets = self.train.inputs[chosen], self.train.targets[chosen]
            yield from map(Batch, inputs.split(rows), targets.split(rows))


@dataclass(frozen=True)
class Task(ABC):
    """What a trial trains on. ``source`` is the domain of pre-training, ``target`` the one to adapt to."""

    source: Domain
    target: Domain
    pretraining: PretrainingOptions | None = field(default=None, kw_only=True)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the record of every trial says about the task."""
        return ()

    @property
    def peft_base(self) -> dict[str, str]:
        """What a PEFT configuration says of the base, such as ``task_type``; nothing of a model of ours."""
        return {}

    @abstractmethod
    def new_model(self) -> Model:
        """The architecture, initialised from torch's global generator, which the caller seeds and restores."""

    def base(self) -> Model | None:
        """The base of a task that needs no pre-training; None where ``pretraining`` makes it."""
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, (N,)."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """What an evaluation measures, always with the mean ``loss``."""

    def derive(self, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics that follow from the averaged ones of one domain, such as perplexity from loss."""
        return {}

    def closing(self, folded: Folded, adapters: Sequence[AdapterOptions]) -> list[dict[str, float]]:
        """Further metrics of each trial, once, after its last step."""
        return [{} for _ in range(folded.trials)]
