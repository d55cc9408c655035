"""Checkpointing keeps less for the backward pass and computes each block twice; bits are in test_packing.py."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.support.builders import attach, llama, lora


def kept_and_calls(checkpointing: bool) -> tuple[int, int]:
    """Bytes that the forward pass keeps, weights aside, and how often the blocks compute in one update."""
    folded = attach(llama(), lora(dropout=0.5))
    folded.model.checkpointing = checkpointing
    weights = {tensor.untyped_storage().data_ptr() for tensor in folded.model.state_dict().values()}
    kept: dict[int, int] = {}
    calls: list[None] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for block in folded.model.blocks:  # type: ignore[union-attr]
        block.register_forward_pre_hook(lambda *_: calls.append(None))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = folded.outputs(torch.arange(80).view(8, 10) % 11, sees=[0]).logsumexp(-1).sum()
    loss.backward()
    return sum(kept.values()), len(calls)


def test_checkpointed_keeps_less_and_computes_every_block_twice() -> None:
    everything, once = kept_and_calls(checkpointing=False)
    little, twice = kept_and_calls(checkpointing=True)
    assert (once, twice) == (2, 4)
    assert little < everything / 5
