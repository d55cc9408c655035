"""Characters: a small Llama that has read one text adapts to another, by default older English."""

from dataclasses import dataclass

import torch

from sweep import schema
from sweep.models.llama import Llama
from sweep.tasks.data import texts_of
from sweep.tasks.text import NextToken, Text


@dataclass(frozen=True)
class Transformer(NextToken):
    """Next-character prediction, in nats per character."""

    config: schema.Transformer
    vocabulary: int

    def new_model(self) -> Llama:
        """The decoder that the configuration describes."""
        config = self.config
        return Llama(self.vocabulary, config.layers, config.width, config.heads, config.hidden, config.context)


def transformer(config: schema.Transformer) -> Transformer:
    """Read both texts and number their characters."""
    texts = texts_of(config)
    characters = sorted(set(texts[0]) | set(texts[1]))
    number = {character: index for index, character in enumerate(characters)}
    source, target = (
        Text.of(torch.tensor([number[character] for character in text]), config.context, config.eval_windows)
        for text in texts
    )
    return Transformer(source, target, config, len(characters), pretraining=config.pretraining)
