"""Gradient checkpointing that draws the same dropout masks twice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from sweep.adapters.lora import LoRALinear


def checkpointed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """``block(*inputs)``, of which only the inputs are kept for the backward pass (Chen et al. 2016).

    The backward pass computes the block again, bit for bit: generators of LoRA dropout inside it are put back
    to where they stood, and afterwards to where they are.
    """
    layers = [module for module in block.modules() if isinstance(module, LoRALinear) and any(module.dropout)]
    rngs = [rng for layer in layers for rng in layer.dropout_rng]
    states = [rng.get_state() for rng in rngs]
    return checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,  # our layers draw from generators of their own
        context_fn=lambda: (nullcontext(), _at(rngs, states)),
    )


@contextmanager
def _at(rngs: Sequence[Generator], states: Sequence[Tensor]) -> Iterator[None]:
    here = [rng.get_state() for rng in rngs]
    _put(rngs, states)
    try:
        yield
    finally:
        _put(rngs, here)


def _put(rngs: Sequence[Generator], states: Sequence[Tensor]) -> None:
    for rng, state in zip(rngs, states, strict=True):
        rng.set_state(state)
