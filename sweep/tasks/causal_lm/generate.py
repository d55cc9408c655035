"""Answers to held-out prompts by greedy decoding; all trials of a pack write together.

Shapes: T trial, P prompts of one trial, L tokens so far, V vocabulary.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.models.hugging_face import import_transformers
from sweep.tasks.causal_lm.rows import Answer, Chat
from sweep.tasks.causal_lm.targets import tokenise

WHOLE_ROW = 1 << 20


class Prompt(NamedTuple):
    """The tokens before a row's first answer, what they say, and the answer that the row has."""

    tokens: list[int]
    text: str
    expected: str


def prompts_of(rows: Sequence[Answer | Chat], tokenizer: Any, count: int, longest: int, key: str) -> list[Prompt]:
    """The prompts of ``count`` rows, evenly from all of them; those of more than ``longest`` tokens are left out."""
    prompts = []
    chosen = [rows[number] for number in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    for example in tokenise(chosen, tokenizer, WHOLE_ROW, "completion", key).examples:
        begin = int(example.is_target.argmax())
        length = int(np.append(example.is_target[begin:], False).argmin())
        before, answer = example.tokens[:begin].tolist(), example.tokens[begin : begin + length].tolist()
        if begin <= longest:
            prompts.append(Prompt(before, tokenizer.decode(before), _decoded(answer, tokenizer)))
    return prompts


def write_answers(
    folded: Folded, prompts: Sequence[Prompt], most: int, ends: Collection[int], tokenizer: Any
) -> list[list[str]]:
    """What each trial answers to each prompt, decoded; see ``write_tokens``."""
    written = write_tokens(folded, [prompt.tokens for prompt in prompts], most, ends)
    return [[_decoded(tokens, tokenizer) for tokens in own] for own in written]


@torch.no_grad()
def write_tokens(
    folded: Folded, prompts: Sequence[Sequence[int]], most: int, ends: Collection[int]
) -> list[list[list[int]]]:
    """What each trial writes after each prompt: at most ``most`` tokens, and none after one of ``ends``.

    Prompts are padded on the left, which the mask and the positions undo; keys and values of earlier tokens are kept.
    """
    transformers = import_transformers()
    device, trials = next(folded.model.parameters()).device, folded.trials
    longest = max(map(len, prompts))
    tokens_P_L = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask_P_L = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    inputs, mask = tokens_P_L.repeat(trials, 1).to(device), mask_P_L.repeat(trials, 1).to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = transformers.DynamicCache(config=cast(Any, folded.model).config)
    stops = torch.tensor(list(ends), device=device)
    has_ended = torch.zeros(len(inputs), dtype=torch.bool, device=device)
    written: list[Tensor] = []
    was_training = folded.model.training
    folded.model.eval()
    while len(written) < most and not has_ended.all():
        settings = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        logits_TP_1_V = folded.outputs(inputs, range(trials), logits_to_keep=1, **settings)
        chosen = logits_TP_1_V[:, -1].argmax(-1)
        written.append(chosen)
        has_ended |= torch.isin(chosen, stops)
        inputs, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(inputs)], 1)
    folded.model.train(was_training)
    rows = [_until_end(row, ends) for row in torch.stack(written, 1).tolist()]
    return [rows[first : first + len(prompts)] for first in range(0, len(rows), len(prompts))]


def _until_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]


def _decoded(tokens: Sequence[int], tokenizer: Any) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()
