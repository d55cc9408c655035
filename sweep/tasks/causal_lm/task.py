"""Any Hugging Face causal language model, as it is, adapts from one text to another, cut into its own tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sweep.errors import ConfigError
from sweep.models import hugging_face
from sweep.models.folder import folder_of
from sweep.models.model import Model
from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.data import documents_of, enough
from sweep.tasks.text import NextToken, Text


@dataclass(frozen=True)
class CausalLM(NextToken):
    """Next-token prediction, in nats per token. The base is the model as its files hold it."""

    config: CausalLMOptions
    folder: Path

    @property
    def notes(self) -> tuple[str, ...]:
        """Which dropout of the model's own is off."""
        _, dropouts = hugging_face.configuration(self.folder)
        return (f"the model's own dropout is off: {', '.join(dropouts)}",) if dropouts else ()

    @property
    def peft_base(self) -> dict[str, str]:
        """The model's name where it is one on the hub; of a folder nothing, since it is somewhere else elsewhere."""
        named = {} if self.config.is_local else {"base_model_name_or_path": self.config.model}
        return {"task_type": "CAUSAL_LM", **named}

    def new_model(self) -> Model:
        """The architecture that the model's files describe."""
        return hugging_face.skeleton(self.folder)

    def base(self) -> Model:
        """The model itself."""
        return hugging_face.load(self.folder)


def causal_lm(config: CausalLMOptions, cache_folder: Path) -> CausalLM:
    """Read both texts and number their tokens.

    Raises ConfigError for texts that are too short, or a context that is too long for the model.
    """
    folder = folder_of(config.model, cache_folder)
    about, _ = hugging_face.configuration(folder)
    longest = getattr(about, "max_position_embeddings", config.context)
    if config.context > longest:
        raise ConfigError([f"task.context = {config.context}: the model reads at most {longest} tokens"])
    domains = []
    for key, documents in zip(("source_text", "target_text"), documents_of(config), strict=True):
        tokens = _tokens(documents, folder)
        enough(tokens, config.context, key, "tokens")
        if tokens.max() >= about.vocab_size:
            raise ConfigError([f"task.model = {config.model!r}: its tokenizer gives token {int(tokens.max())}, the model has {about.vocab_size}; they do not belong together"])  # fmt: skip
        domains.append(Text.of(tokens, config.context, config.eval_windows))
    source, target = domains
    return CausalLM(source, target, config, folder)


@cache
def _tokens(documents: Sequence[str], folder: Path) -> Tensor:
    """The tokens of all documents in a row, with the tokenizer's end of text, if it has one, between them."""
    tokenizer = hugging_face.tokenizer_of(folder)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    numbered = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    joined = [token for document in numbered for token in (*document, *end)]
    return torch.tensor(joined[: len(joined) - len(end)], dtype=torch.long)
