"""Any Hugging Face causal language model, as it is, adapts from one text to another, cut into its own tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sweep.adapters.fold import Folded
from sweep.errors import ConfigError
from sweep.metrics import EXACT_MATCH, LOSS, PERPLEXITY, TOKEN_ACCURACY
from sweep.models import hugging_face
from sweep.models.folder import folder_of
from sweep.models.gguf import SMOLLM2
from sweep.models.model import Model
from sweep.models.outline import Outline, outline_of
from sweep.rng import drawing_from
from sweep.samples import Sample
from sweep.tasks.causal_lm.blocks import NO_TARGET, target_values
from sweep.tasks.causal_lm.data import domain_of, prompts_for, splits
from sweep.tasks.causal_lm.generate import Prompt, write_answers
from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.next_token import NextToken


@dataclass(frozen=True)
class CausalLM(NextToken):
    """Next-token prediction, in nats per token. The base is the model as its files hold it."""

    metrics = (LOSS, TOKEN_ACCURACY, PERPLEXITY, EXACT_MATCH)

    options: CausalLMOptions
    folder: Path
    about: Outline
    of_rows: tuple[str, ...] = ()
    prompts: tuple[Prompt, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which of the model's own dropout rates were set to 0, and which rows were cut or left out."""
        dropouts = ", ".join(self.about.dropouts)
        off = (f"the model's own dropout is off: {dropouts}",) if dropouts else ()
        return (*off, *self.of_rows)

    def weights(self, targets: Tensor) -> Tensor:
        """The fraction of a row's positions that have a target."""
        return (targets != NO_TARGET).float().mean(1)

    def learnt(self, targets: Tensor) -> Tensor:
        """The positions that have a target."""
        return targets != NO_TARGET

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy averaged over the targets of each row."""
        return _losses(outputs, targets).sum(1) / (targets != NO_TARGET).sum(1).clamp(min=1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The loss at each position (N, S), and whether its target is the likeliest token."""
        hits = target_values(outputs, targets, lambda logits, wanted: (logits.argmax(-1) == wanted).float())
        return {LOSS.name: _losses(outputs, targets), TOKEN_ACCURACY.name: hits}

    @property
    def peft_base(self) -> dict[str, str]:
        """The model's name on the hub; nothing for a local one: its path means nothing on another machine."""
        is_on_hub = not self.options.is_local and self.options.model != SMOLLM2
        named = {"base_model_name_or_path": self.options.model} if is_on_hub else {}
        return {"task_type": "CAUSAL_LM", **named}

    def unmodified(self) -> nn.Module:
        """The model's own class, on the meta device."""
        with torch.device("meta"):
            return hugging_face.unmodified(self.folder)

    def new_model(self, rng: Generator) -> Model:
        """The architecture that the model's files describe."""
        with drawing_from(rng):
            return hugging_face.skeleton(self.folder)

    def outline(self) -> Model:
        """The same without numbers, from the cache."""
        return self.about.model()

    def base(self) -> Model:
        """The model itself."""
        return hugging_face.load(self.folder)

    def samples(self, folded: Folded) -> list[list[Sample]]:
        """Answers to ``prompts``, which are held out."""
        if not self.prompts:
            return super().samples(folded)
        tokenizer = hugging_face.tokenizer_of(self.folder)
        ends = hugging_face.end_tokens(self.folder)
        answers = write_answers(folded, self.prompts, self.options.generate.tokens, ends, tokenizer)
        return [
            [Sample(prompt.text, prompt.expected, text) for prompt, text in zip(self.prompts, own, strict=True)]
            for own in answers
        ]


def causal_lm(options: CausalLMOptions, cache_folder: Path) -> CausalLM:
    """Read the rows of both domains and number their tokens.

    Raises ConfigError for data that cannot be used, or a context that is too long for the model.
    """
    folder = folder_of(options.model, cache_folder)
    about = outline_of(folder, cache_folder)
    longest = about.longest or options.context
    if options.context > longest:
        raise ConfigError([f"task.context = {options.context}: the model reads at most {longest} tokens"])
    parts = splits(options)
    (source, of_source), (target, of_target) = (domain_of(split, options, cache_folder) for split in parts)
    prompts = prompts_for(parts[1], options, cache_folder, longest) if options.generate.prompts else ()
    return CausalLM(source, target, options, folder, about, (*of_source, *of_target), prompts)


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy (N, S) of each target, and 0 where there is none."""
    return target_values(outputs, targets, lambda logits, wanted: F.cross_entropy(logits, wanted, reduction="none"))
