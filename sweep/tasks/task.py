"""The interface of a task: a base to start from, two domains, a loss, and its metrics.

Shapes: N rows of all trials, trial-major; every value is for one row, so trials never see each other.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from sweep.adapters.fold import Folded
from sweep.adapters.options import AdapterOptions
from sweep.metrics import Kind, Metric
from sweep.models.meta import without_numbers
from sweep.models.model import Model
from sweep.samples import Sample
from sweep.tasks.pretraining import PretrainingOptions

GATHERED_BATCHES = 16
"""Batches whose rows are gathered from the data at once: many small gathers take longer."""


class Batch(NamedTuple):
    """Inputs and targets, both with the rows first."""

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        return Batch(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Division:
    """How M held-out rows divide into E test examples, and which of these belong together.

    ``cluster`` (E,) has one number for the examples that belong together, such as the verses of a chapter. ``spans``
    (E, 2) are the first position of each example and the one behind its last, counted through all rows, of a task that
    scores positions; None where each row is one example.
    """

    cluster: Tensor
    spans: Tensor | None = None

    @classmethod
    def by_position(cls, parts: Tensor, clusters: Tensor | None = None) -> "Division":
        """Each part of a row is an example: neighbouring positions with the same number in ``parts`` (M, S).

        Positions with a negative number belong to none. ``clusters`` has the cluster of each number; None: its own.
        """
        numbers = parts.flatten().long()
        begins_here = numbers.diff(prepend=numbers[:1]) != 0
        begins_here[:: parts.shape[1]] = True
        begins = begins_here.nonzero().flatten()
        spans = torch.stack([begins, torch.cat([begins[1:], torch.tensor([len(numbers)])])], 1)
        spans = spans[numbers[begins] >= 0]
        own = numbers[spans[:, 0]]
        return cls(own if clusters is None else clusters[own], spans)

    def of_rows(self, chosen: Tensor, size: int) -> "Division":
        """The examples in the rows ``chosen`` (m,), ascending, of ``size`` positions each, counted through these rows."""
        assert self.spans is not None
        row = self.spans[:, 0] // size
        own = torch.isin(row, chosen)
        moved = (torch.searchsorted(chosen, row[own]) - row[own]) * size
        return Division(self.cluster[own], self.spans[own] + moved[:, None])


class Domain(Protocol):
    """One data distribution: batches to train on, and rows that training never sees.

    It may have two more: ``validation``, a batch of rows that training never sees either and that are evaluated while a
    trial trains, in the place of the test examples; and ``division``, where a held-out row is not one test example that
    stands by itself.
    """

    @property
    def held_out(self) -> Batch:
        """The test examples, on which a trial is scored once, at its end."""

    @property
    def positions(self) -> int:
        """Positions of one row that the layers compute: the tokens of a sequence, 1 for a vector of features."""

    @property
    def epoch_rows(self) -> int:
        """Rows of one pass over the data to train on."""

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        """Endless batches of ``rows`` rows, in an order that ``rng`` decides."""


@dataclass(frozen=True)
class Examples:
    """A domain of separate examples, each seen once an epoch in a new order."""

    train: Batch
    held_out: Batch
    positions: int = 1
    validation: Batch | None = None
    division: Division | None = None

    @property
    def epoch_rows(self) -> int:
        """All examples to train on."""
        return len(self.train.inputs)

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
    """What a trial trains on. ``source`` is the domain of pre-training, ``target`` the one to adapt to.

    ``metrics`` are all that the task measures, ``sweep.metrics.LOSS`` among them. Whatever ``scores``, ``derive`` and
    ``closing`` give is of these, under its full name, such as ``eval/loss``.
    """

    metrics: ClassVar[tuple[Metric, ...]]

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

    def unmodified(self) -> nn.Module | None:
        """The model as its own library makes it, on the meta device; None for a model of ours."""
        return None

    @abstractmethod
    def new_model(self, rng: Generator) -> Model:
        """The architecture, initialised from ``rng``, which moves on."""

    def outline(self) -> Model:
        """The same modules and shapes on the meta device, without numbers."""
        with without_numbers():
            return self.new_model(Generator())

    def base(self) -> Model | None:
        """The base of a task that needs no pre-training; None where ``pretraining`` makes it."""
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, (N,)."""

    def weights(self, targets: Tensor) -> Tensor:
        """The weight (N,) of each row in the means of a trial: its loss over an update, and an evaluation."""
        return torch.ones(len(targets), device=targets.device)

    def learnt(self, targets: Tensor) -> Tensor | None:
        """Which positions (N, S) have something to learn, for the initialisations that look at data; None: all."""
        return None

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Values of each row (N,) by metric, ``eval/loss`` always; an evaluation takes their means or sums.

        A task whose rows may hold several examples gives those of each position (N, S), 0 where nothing is to be learnt;
        the value of a row is then the mean over what is.
        """

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """Metrics that follow from the means over one domain, such as perplexity from loss."""
        return {}

    def samples(self, folded: Folded) -> list[list[Sample]]:
        """Answers of each trial, once, after its last step. Their share that is as expected is ``EXACT_MATCH``."""
        return [[] for _ in range(folded.trials)]

    def closing(self, folded: Folded, adapters: Sequence[AdapterOptions]) -> list[dict[str, float]]:
        """Metrics of kind ``end`` of each trial, taken once, after its last step."""
        return [{} for _ in range(folded.trials)]


def validation_of(domain: Domain) -> Batch | None:
    """The rows that are evaluated while a trial trains; None of a domain that has none, whose test examples serve."""
    validation: Batch | None = getattr(domain, "validation", None)
    return validation


def division_of(domain: Domain) -> Division:
    """The test examples of a domain; where it says nothing of them, each held-out row is one and stands by itself."""
    division: Division | None = getattr(domain, "division", None)
    return Division(torch.arange(len(domain.held_out.targets))) if division is None else division


def with_test_examples(domain: Domain, count: int) -> Domain:
    """The domain with as few of its held-out rows, evenly spaced, as have ``count`` test examples between them.

    It keeps all where there are fewer examples, or where each row is one.
    """
    held_out, division = domain.held_out, division_of(domain)
    if division.spans is None:
        return domain
    rows, size = held_out.targets.shape
    examples = (division.spans[:, 0] // size).bincount(minlength=rows)

    def spread(few: int) -> Tensor:
        return torch.linspace(0, rows - 1, few).long()

    few = 1 + bisect_left(range(1, rows), count, key=lambda few: int(examples[spread(few)].sum()))
    chosen = spread(few)
    part = Batch(held_out.inputs[chosen], held_out.targets[chosen])
    return Examples(part, part, domain.positions, division=division.of_rows(chosen, size))


def require_declared(task: Task, names: Iterable[str], *kinds: Kind) -> None:
    """Raise ValueError where one of ``names``, which ``task`` measured, is not a metric of these kinds of its own."""
    declared = [metric.name for metric in task.metrics if metric.kind in kinds]
    if undeclared := [name for name in names if name not in declared]:
        raise ValueError(
            f"{type(task).__name__} measured {undeclared[0]!r}, which its metrics do not declare; "
            f"of kind {' or '.join(kinds)} they are {', '.join(declared) or 'none'}"
        )
