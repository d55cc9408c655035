"""Gradient checkpointing that draws the same dropout masks twice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint


@runtime_checkable
class DrawsAtRandom(Protocol):
    """A module whose forward pass draws from generators of its own."""

    def generators(self) -> Sequence[Generator]:
        """The generators that a forward pass may draw from."""


def checkpointed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """``block(*inputs)``, of which only the inputs are kept for the backward pass (Chen et al. 2016).

    The backward pass computes the block again, bit for bit: the generators of the modules inside it are put back
    to where they stood, and afterwards to where they are.
    """
    rngs = [rng for module in block.modules() if isinstance(module, DrawsAtRandom) for rng in module.generators()]
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
