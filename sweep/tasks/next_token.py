"""Running text as numbered tokens: windows of it, and the loss of predicting each next token."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sweep.metrics import LOSS, PERPLEXITY, Metric
from sweep.tasks.task import Batch, Task

HELD_OUT = 0.1
"""The fraction at the end of each text that training never sees."""
LARGEST_EXPONENT = 700.0
"""e to it is nearly the largest float."""


@dataclass(frozen=True)
class Text:
    """A domain of running text: windows anywhere in ``train``, evenly spaced ones of the held-out rest."""

    train: Tensor
    held_out: Batch
    context: int

    @property
    def positions(self) -> int:
        """Tokens of a window."""
        return self.context

    @property
    def epoch_rows(self) -> int:
        """Windows side by side."""
        return len(self.train) // self.context

    @classmethod
    def of(cls, tokens: Tensor, context: int, eval_windows: int) -> "Text":
        """Keep the last tenth of ``tokens`` apart and take ``eval_windows`` windows of ``context`` from it."""
        train, rest = tokens.split([len(tokens) - int(HELD_OUT * len(tokens)), int(HELD_OUT * len(tokens))])
        starts = torch.linspace(0, len(rest) - context - 1, eval_windows).long()
        return cls(train, windows(rest, starts, context), context)

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


def windows(tokens: Tensor, starts: Tensor, context: int) -> Batch:
    """Windows of ``context`` tokens from each start (rows,), and the same shifted by one."""
    positions = starts[:, None] + torch.arange(context)
    return Batch(tokens[positions], tokens[positions + 1])
