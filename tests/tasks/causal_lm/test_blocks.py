"""Rows laid end to end give what they give alone, and hardly anything is computed for nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sweep.models import hugging_face
from sweep.tasks.causal_lm.blocks import NO_ROW, NO_TARGET, in_blocks, lay_out, padded, target_values
from sweep.tasks.causal_lm.targets import Example
from tests.support import hugging_face as tiny

CONTEXT = 24


def examples(count: int = 20, longest: int = CONTEXT) -> list[Example]:
    """Random rows of 2 to ``longest`` tokens, the second half of each to be predicted."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, longest + 1, count)
    return [
        Example(rng.integers(1, tiny.VOCABULARY, length, dtype=np.int32), np.arange(length) >= (length + 1) // 2)
        for length in lengths
    ]


def test_lay_out_by_hand() -> None:
    assert lay_out([4, 8, 1, 4, 2, 1], 10) == [[1, 2, 5], [0, 3, 4]]


def test_lay_out_holds_every_row_once_and_none_too_many() -> None:
    lengths = np.random.default_rng(1).integers(1, 100, 500).tolist()
    blocks = lay_out(lengths, 100)
    assert sorted(row for block in blocks for row in block) == list(range(500))
    assert max(sum(lengths[row] for row in block) for block in blocks) <= 100
    assert len(blocks) <= 1.03 * sum(lengths) / 100


def test_blocks_by_hand() -> None:
    rows = [
        Example(np.array([5, 6, 7, 8]), np.array([0, 0, 1, 1], bool)),
        Example(np.array([9, 4]), np.array([0, 1], bool)),
    ]
    inputs, targets, numbers = in_blocks(rows, 7)
    assert inputs.tolist() == [[[5, 6, 7, 9, 0, 0, 0], [0, 1, 2, 0, 0, 1, 2], [0, 1, 1, 1, 0, 0, 0]]]
    assert targets.tolist() == [[NO_TARGET, 7, 8, 4, NO_TARGET, NO_TARGET, NO_TARGET]]
    assert numbers.tolist() == [[0, 0, 0, 1, NO_ROW, NO_ROW, NO_ROW]]
    inputs, targets, numbers = padded(rows, 4)
    assert numbers.tolist() == [[0, 0, 0, NO_ROW], [1, NO_ROW, NO_ROW, NO_ROW]]
    assert inputs.tolist() == [[5, 6, 7, 0], [9, 0, 0, 0]]
    assert targets.tolist() == [[NO_TARGET, 7, 8, NO_TARGET], [4, NO_TARGET, NO_TARGET, NO_TARGET]]


def test_each_block_has_a_position_that_is_no_rows() -> None:
    [full] = in_blocks([Example(np.arange(1, 8), np.ones(7, bool))], 7).inputs
    assert full[1].tolist() == [0, 1, 2, 3, 4, 5, 0]


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return target_values(outputs, targets, lambda logits, wanted: F.cross_entropy(logits, wanted, reduction="none"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_blocks_have_the_losses_of_padded_rows(family: str) -> None:
    model = hugging_face.as_model(tiny.network(family).eval())
    rows = examples()
    assert hugging_face.takes_blocks(model)
    together, alone = in_blocks(rows, CONTEXT), padded(rows, CONTEXT)
    blocks = lay_out([len(row.tokens) - 1 for row in rows], CONTEXT - 1)
    in_a_block = losses(model(together.inputs), together.targets)
    by_itself = losses(model(alone.inputs), alone.targets)
    for block, members in enumerate(blocks):
        begin = 0
        for row in members:
            length = len(rows[row].tokens) - 1
            torch.testing.assert_close(
                in_a_block[block, begin : begin + length], by_itself[row, :length], atol=1e-5, rtol=0
            )
            begin += length
    assert max(map(len, blocks)) > 2


def test_logits_are_computed_where_a_token_is_a_target() -> None:
    model = hugging_face.as_model(tiny.network("llama").eval())
    batch = in_blocks(examples(), CONTEXT)
    wanted = batch.targets != NO_TARGET
    assert model(batch.inputs).shape == (int(wanted.sum()), tiny.VOCABULARY)
    everywhere = batch.inputs.clone()
    everywhere[:, 2] = 1
    assert torch.equal(model(everywhere).view(*wanted.shape, -1)[wanted], model(batch.inputs))
    assert model(batch.inputs[:, 0]).shape == (*wanted.shape, tiny.VOCABULARY)  # plain tokens as ever


def test_block_is_the_same_beside_any_other_bit_for_bit() -> None:
    model = hugging_face.as_model(tiny.network("llama").eval())
    batch = in_blocks([*examples(), Example(np.arange(1, CONTEXT + 1), np.ones(CONTEXT, bool))], CONTEXT)
    together = losses(model(batch.inputs), batch.targets)
    for block in range(len(batch.inputs)):
        alone = losses(model(batch.inputs[block : block + 1]), batch.targets[block : block + 1])
        assert torch.equal(alone[0], together[block])


@pytest.mark.parametrize(
    ("family", "takes"), [("llama", True), ("gpt2", True), ("qwen3", True), ("bloom", False), ("mamba", False)]
)
def test_families_that_take_blocks_are_found_by_computing(family: str, takes: bool) -> None:
    assert hugging_face.takes_blocks(hugging_face.as_model(tiny.network(family).eval())) is takes
