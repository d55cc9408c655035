"""Rows of different lengths laid end to end in blocks of one length, so that hardly any computation is wasted.

Each row sees only itself: its positions begin at 0, from which transformers makes a causal mask for each row.
Shapes: M blocks, S positions of one block.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sweep.tasks.causal_lm.targets import Example

NO_TARGET = -100
"""The target that torch's cross-entropy ignores."""
NO_ROW = -1


class Blocks(NamedTuple):
    """``inputs`` (M, …), the ``targets`` (M, S) of each position or ``NO_TARGET``, and its row's number or ``NO_ROW``."""

    inputs: Tensor
    targets: Tensor
    rows: Tensor


def lay_out(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which rows share a block of ``size``: each in the fullest block that has room for it, the longest first.

    Best-fit decreasing: at most 11/9 of the fewest blocks, plus one (Johnson 1974).
    """
    blocks: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(size + 1)]
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        assert length <= size, "rows are cut before"
        room = next((room for room in range(length, size + 1) if with_room[room]), None)
        if room is None:
            room = size
            with_room[room].append(len(blocks))
            blocks.append([])
        block = with_room[room].pop()
        blocks[block].append(row)
        with_room[room - length].append(block)
    return blocks


def in_blocks(examples: Sequence[Example], context: int) -> Blocks:
    """The rows in blocks of ``context`` positions.

    The last position of a block belongs to no row, so that each block has the beginning of a second one: without any,
    transformers would leave the mask out, which another block of the batch must not decide.

    Returns:
        inputs (M, 3, S), the tokens, their positions in their rows, and 1 where logits are needed; targets, the token
        after each position; rows, by their numbers in ``examples``. int32.

    """
    blocks = lay_out([len(example.tokens) - 1 for example in examples], context - 1)
    inputs = np.zeros((len(blocks), 3, context), dtype=np.int32)
    targets = np.full((len(blocks), context), NO_TARGET, dtype=np.int32)
    rows = np.full((len(blocks), context), NO_ROW, dtype=np.int32)
    for block, members in enumerate(blocks):
        begin = 0
        for row in members:
            example = examples[row]
            end = begin + len(example.tokens) - 1
            inputs[block, 0, begin:end] = example.tokens[:-1]
            inputs[block, 1, begin:end] = np.arange(end - begin)
            targets[block, begin:end] = _targets(example)
            rows[block, begin:end] = row
            begin = end
        inputs[block, 1, begin:] = np.arange(context - begin)
        inputs[block, 2] = targets[block] != NO_TARGET
    return Blocks(*map(torch.from_numpy, (inputs, targets, rows)))


def padded(examples: Sequence[Example], context: int) -> Blocks:
    """The rows alone, each in a block of ``context`` positions: inputs (M, S), targets and rows, int32."""
    inputs = np.zeros((len(examples), context), dtype=np.int32)
    targets = np.full((len(examples), context), NO_TARGET, dtype=np.int32)
    rows = np.full((len(examples), context), NO_ROW, dtype=np.int32)
    for row, example in enumerate(examples):
        length = len(example.tokens) - 1
        inputs[row, :length], targets[row, :length] = example.tokens[:-1], _targets(example)
        rows[row, :length] = row
    return Blocks(*map(torch.from_numpy, (inputs, targets, rows)))


def _targets(example: Example) -> np.ndarray:
    return np.where(example.is_target[1:], example.tokens[1:], NO_TARGET)


def target_values(outputs: Tensor, targets: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What ``value`` says of each target, and 0 where there is none, (N, S).

    Args:
        outputs: logits of the targets alone (number of targets, V), or of all positions (N, S, V).
        targets: (N, S), with ``NO_TARGET``.
        value: from logits (n, V) and targets (n,) to (n,).

    """
    has_target = targets != NO_TARGET
    if has_target.all():
        return value(outputs.view(-1, outputs.shape[-1]), targets.flatten().long()).view(targets.shape)
    logits = outputs if outputs.ndim == 2 else outputs[has_target]
    of_targets = value(logits, targets[has_target].long())
    return torch.zeros(targets.shape, device=outputs.device).masked_scatter(has_target, of_targets)
