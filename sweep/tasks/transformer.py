"""Characters: a small Llama that has read one text adapts to another, by default older English."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sweep import schema
from sweep.models.llama import Llama
from sweep.tasks.data import texts_of
from sweep.tasks.task import Batch, Scores, Task

HELD_OUT = 0.1  # the last part of each text


@dataclass(frozen=True)
class Text:
    """A domain of running text: windows anywhere in ``train``, evenly spaced ones of the held-out rest."""

    train: Tensor
    held_out: Batch
    context: int

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        """Windows (rows, context) that begin anywhere, and the character after each position."""
        while True:
            starts = torch.randint(len(self.train) - self.context, (rows,), generator=rng)
            yield windows(self.train, starts, self.context)


@dataclass(frozen=True)
class Transformer(Task):
    """Next-character prediction, in nats per character."""

    config: schema.Transformer
    vocabulary: int

    def new_model(self) -> Llama:
        """The decoder that the configuration describes."""
        config = self.config
        return Llama(self.vocabulary, config.layers, config.width, config.heads, config.hidden, config.context)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy averaged over the characters of each window."""
        per_character = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return per_character.view(targets.shape).mean(1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """The loss alone; perplexity follows from its mean."""
        return Scores({"loss": self.loss(outputs, targets)})

    def derive(self, metrics: dict[str, float]) -> dict[str, float]:
        """Perplexity per character, e to the loss."""
        return {"perplexity": math.exp(min(metrics["loss"], 700.0))}


def transformer(config: schema.Transformer) -> Transformer:
    """Read both texts and number their characters."""
    texts = texts_of(config)
    characters = sorted(set(texts[0]) | set(texts[1]))
    number = {character: index for index, character in enumerate(characters)}
    source, target = (_text(text, number, config) for text in texts)
    return Transformer(source, target, config, len(characters), pretraining=config.pretraining)


def _text(text: str, number: dict[str, int], config: schema.Transformer) -> Text:
    tokens = torch.tensor([number[character] for character in text])
    train, rest = tokens.split([len(tokens) - int(HELD_OUT * len(tokens)), int(HELD_OUT * len(tokens))])
    starts = torch.linspace(0, len(rest) - config.context - 1, config.eval_windows).long()
    return Text(train, windows(rest, starts, config.context), config.context)


def windows(tokens: Tensor, starts: Tensor, context: int) -> Batch:
    """Windows of ``context`` tokens from each start (rows,), and the same shifted by one."""
    positions = starts[:, None] + torch.arange(context)
    return Batch(tokens[positions], tokens[positions + 1])
