"""Characters: a small Llama that has read one text adapts to another, by default older English."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sweep.models.llama import Llama
from sweep.rng import drawing_from
from sweep.tasks.next_token import NextToken, Text
from sweep.tasks.transformer.options import TransformerOptions


@dataclass(frozen=True)
class Transformer(NextToken):
    """Next-character prediction, in nats per character."""

    options: TransformerOptions
    vocabulary: int

    def new_model(self, rng: Generator) -> Llama:
        """The decoder that the options describe."""
        options = self.options
        with drawing_from(rng):
            return Llama(self.vocabulary, options.layers, options.width, options.heads, options.hidden, options.context)


def transformer(options: TransformerOptions) -> Transformer:
    """Read both texts and number their characters."""
    texts = options.read_texts()
    characters = sorted(set(texts[0]) | set(texts[1]))
    number = torch.zeros(ord(characters[-1]) + 1, dtype=torch.long)
    number[[ord(character) for character in characters]] = torch.arange(len(characters))
    source, target = (
        Text.of(number[_code_points(text)], options.context, options.eval_windows, options.validation) for text in texts
    )
    return Transformer(source, target, options, len(characters), pretraining=options.pretraining)


def _code_points(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text, "utf-32-le"), dtype=torch.int32)
