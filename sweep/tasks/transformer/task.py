"""Characters: a small Llama that has read one text adapts to another, by default older English."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.models.llama import Llama
from sweep.tasks.data import texts_of
from sweep.tasks.text import NextToken, Text
from sweep.tasks.transformer.options import TransformerOptions


@dataclass(frozen=True)
class Transformer(NextToken):
    """Next-character prediction, in nats per character."""

    config: TransformerOptions
    vocabulary: int

    def new_model(self) -> Llama:
        """The decoder that the configuration describes."""
        config = self.config
        return Llama(self.vocabulary, config.layers, config.width, config.heads, config.hidden, config.context)


def transformer(config: TransformerOptions) -> Transformer:
    """Read both texts and number their characters."""
    texts = texts_of(config)
    characters = sorted(set(texts[0]) | set(texts[1]))
    number = torch.zeros(ord(characters[-1]) + 1, dtype=torch.long)
    number[[ord(character) for character in characters]] = torch.arange(len(characters))
    source, target = (Text.of(number[_code_points(text)], config.context, config.eval_windows) for text in texts)
    return Transformer(source, target, config, len(characters), pretraining=config.pretraining)


def _code_points(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text, "utf-32-le"), dtype=torch.int32)
