"""Any Hugging Face causal language model, as it is, adapts from one text to another, cut into its own tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Generator, Tensor

from sweep.errors import ConfigError
from sweep.models import hugging_face
from sweep.models.model import Model
from sweep.rng import drawing_from
from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.next_token import NextToken, Text
from sweep.tasks.texts import documents_of, require_windows


@dataclass(frozen=True)
class CausalLM(NextToken):
    """Next-token prediction, in nats per token. The base is the model as its files hold it."""

    options: CausalLMOptions
    folder: Path

    @property
    def notes(self) -> tuple[str, ...]:
        """Which of the model's own dropout rates were set to 0."""
        _, dropouts = hugging_face.configuration(self.folder)
        return (f"the model's own dropout is off: {', '.join(dropouts)}",) if dropouts else ()

    @property
    def peft_base(self) -> dict[str, str]:
        """The model's name on the hub; nothing for a local folder: its path means nothing on another machine."""
        named = {} if self.options.is_local else {"base_model_name_or_path": self.options.model}
        return {"task_type": "CAUSAL_LM", **named}

    def new_model(self, rng: Generator) -> Model:
        """The architecture that the model's files describe."""
        with drawing_from(rng):
            return hugging_face.skeleton(self.folder)

    def base(self) -> Model:
        """The model itself."""
        return hugging_face.load(self.folder)


def causal_lm(options: CausalLMOptions) -> CausalLM:
    """Read both texts and number their tokens.

    Raises ConfigError for texts that are too short, or a context that is too long for the model.
    """
    folder = hugging_face.folder_of(options.model)
    about, _ = hugging_face.configuration(folder)
    longest = getattr(about, "max_position_embeddings", options.context)
    if options.context > longest:
        raise ConfigError([f"task.context = {options.context}: the model reads at most {longest} tokens"])
    domains = []
    texts = documents_of(options.source_text, options.target_text)
    for key, documents in zip(("source_text", "target_text"), texts, strict=True):
        tokens = _tokens(documents, folder)
        require_windows(tokens, options.context, key, "tokens")
        if tokens.max() >= about.vocab_size:
            raise ConfigError(
                [
                    f"task.model = {options.model!r}: its tokenizer gives token {int(tokens.max())}, "
                    f"the model has {about.vocab_size}; they do not belong together"
                ]
            )
        domains.append(Text.of(tokens, options.context, options.eval_windows))
    source, target = domains
    return CausalLM(source, target, options, folder)


@cache
def _tokens(documents: Sequence[str], folder: Path) -> Tensor:
    """The tokens of all documents in a row, with the tokenizer's end of text, if it has one, between them."""
    tokenizer = hugging_face.tokenizer_of(folder)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    numbered = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    joined = [token for document in numbered for token in (*document, *end)]
    return torch.tensor(joined[: len(joined) - len(end)], dtype=torch.long)
