"""Running text as numbered tokens: windows of it, and the loss of predicting each next token."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sweep.tasks.task import Batch, Scores, Task

HELD_OUT = 0.1  # the last part of each text


@dataclass(frozen=True)
class Text:
    """A domain of running text: windows anywhere in ``train``, evenly spaced ones of the held-out rest."""

    train: Tensor
    held_out: Batch
    context: int

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy averaged over the tokens of each window."""
        per_token = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return per_token.view(targets.shape).mean(1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """The loss alone; perplexity follows from its mean."""
        return Scores({"loss": self.loss(outputs, targets)})

    def derive(self, metrics: dict[str, float]) -> dict[str, float]:
        """Perplexity per token, e to the loss."""
        return {"perplexity": math.exp(min(metrics["loss"], 700.0))}


def windows(tokens: Tensor, starts: Tensor, context: int) -> Batch:
    """Windows of ``context`` tokens from each start (rows,), and the same shifted by one."""
    positions = starts[:, None] + torch.arange(context)
    return Batch(tokens[positions], tokens[positions + 1])
