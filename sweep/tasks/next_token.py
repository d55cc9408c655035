"""Running text as numbered tokens: windows of it, and the loss of predicting each next token."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sweep.metrics import LOSS, PERPLEXITY, Metric
from sweep.tasks.task import Batch, Division, Task

HELD_OUT = 0.1
"""The fraction at the end of each text that training never sees; and of the rest, where there is a validation."""
FEWEST_CLUSTERS = 50
"""Stretches of text into which the test windows are divided at the least, where there are as many."""
LARGEST_EXPONENT = 700.0
"""Its exponential is nearly the largest float."""


@dataclass(frozen=True)
class Text:
    """A domain of running text: windows anywhere in ``train``, evenly spaced ones of what is held out."""

    train: Tensor
    held_out: Batch
    context: int
    validation: Batch | None = None
    room: int | None = None
    """Windows side by side that the held-out text has room for, where it is known."""
    documents: Tensor | None = None
    """The number (E, S) of the document that each target of a test window is in, where it is known."""

    @property
    def positions(self) -> int:
        """Tokens of a window."""
        return self.context

    @property
    def epoch_rows(self) -> int:
        """Windows side by side."""
        return len(self.train) // self.context

    @cached_property
    def division(self) -> Division:
        """Of several documents, each with its parts of the test windows; otherwise the stretch that each window is in.

        Neighbouring windows have more in common than others.
        """
        if self.documents is not None and (self.documents != self.documents[0, 0]).any():
            return Division.by_position(self.documents)
        count = len(self.held_out.targets)
        return Division(torch.arange(count) // max(1, count // FEWEST_CLUSTERS))

    @classmethod
    def of(
        cls,
        tokens: Tensor,
        context: int,
        eval_windows: int,
        validation: int,
        held_out: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> "Text":
        """Keep a part of ``tokens`` apart and take windows of ``context`` from it.

        Args:
            tokens: the text.
            context: the length of a window.
            eval_windows: how many windows are test examples.
            validation: how many are validation examples, from the last tenth of what is left to train on; 0 for none.
            held_out: the text that is held out; None takes the last tenth of ``tokens``.
            documents: the number of the document of each token of the text that test windows are taken from.

        """
        train, rest = _last_tenth_apart(tokens) if held_out is None else (tokens, held_out)
        withheld = None
        if validation:
            train, own = _last_tenth_apart(train)
            withheld = _spread(own, context, validation)
        of_targets = None if documents is None else _spread(documents[-len(rest) :], context, eval_windows).targets
        room = (len(rest) - 1) // context
        return cls(train, _spread(rest, context, eval_windows), context, withheld, room, of_targets)

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        """Windows (rows, context) that begin anywhere, and the token after each position."""
        while True:
            starts = torch.randint(len(self.train) - self.context, (rows,), generator=rng)
            yield windows(self.train, starts, self.context)


class NextToken(Task):
    """Next-token prediction, in nats per token."""

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, PERPLEXITY)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy averaged over the tokens of each window."""
        per_token = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return per_token.view(targets.shape).mean(1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The loss alone; perplexity follows from its mean."""
        return {LOSS.name: self.loss(outputs, targets)}

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """Perplexity per token, e to the loss."""
        return {PERPLEXITY.name: math.exp(min(means[LOSS.name], LARGEST_EXPONENT))}


def _last_tenth_apart(tokens: Tensor) -> tuple[Tensor, Tensor]:
    tenth = int(HELD_OUT * len(tokens))
    return tokens[: len(tokens) - tenth], tokens[len(tokens) - tenth :]


def _spread(tokens: Tensor, context: int, count: int) -> Batch:
    return windows(tokens, torch.linspace(0, len(tokens) - context - 1, count).long(), context)


def windows(tokens: Tensor, starts: Tensor, context: int) -> Batch:
    """Windows of ``context`` tokens from each start (rows,), and the same shifted by one."""
    positions = starts[:, None] + torch.arange(context)
    return Batch(tokens[positions], tokens[positions + 1])
