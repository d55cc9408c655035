"""The rank, alpha and scaling of one layer: LoRA's arithmetic on the options of an adapter."""

import re
from typing import TypeVar

from sweep.adapters.options import AdapterOptions

Number = TypeVar("Number", int, float)


def widest(adapter: AdapterOptions) -> int:
    """The largest rank that any layer may have."""
    return max([adapter.rank or 1, *(adapter.rank_pattern or {}).values()])


def rank_of(adapter: AdapterOptions, layer: str) -> int:
    """The rank of the layer with this dotted name."""
    assert adapter.rank is not None
    return _first_match(adapter.rank_pattern, layer, adapter.rank)


def alpha_of(adapter: AdapterOptions, layer: str) -> float:
    """The alpha of the layer with this dotted name."""
    assert adapter.alpha is not None
    return _first_match(adapter.alpha_pattern, layer, adapter.alpha)


def scale_of(adapter: AdapterOptions, layer: str) -> float:
    """The factor of B·A: alpha/rank (LoRA), alpha/√rank (rsLoRA, Kalajdzievski 2023) or alpha."""
    rank, alpha = rank_of(adapter, layer), alpha_of(adapter, layer)
    return alpha / {"alpha/rank": rank, "alpha/sqrt_rank": rank**0.5, "alpha": 1}[str(adapter.scaling)]


def bucket(rank: int) -> int:
    """The rank that ``rank`` is padded to: the next power of two.

    Trials share a pack only within a bucket, so a trial's padding does not depend on its neighbours.
    """
    return 1 << (rank - 1).bit_length()


def matches(expression: str, layer: str) -> bool:
    """Whether a pattern's expression is the whole name of ``layer`` or its end from a dot on, as in PEFT."""
    return re.match(rf"(.*\.)?({expression})$", layer) is not None


def _first_match(pattern: dict[str, Number] | None, layer: str, default: Number) -> Number:
    return next((value for name, value in (pattern or {}).items() if matches(name, layer)), default)
