"""An initialisation as somebody would add it: one function, to be registered by one line."""

from functools import partial

import torch
from torch import Generator, Tensor

from sweep.adapters.inits import BaseWeight, Init

PLACE = "tests.support.own_init:top_left"


@partial(Init, moves_base=True, vectors="min")
def top_left(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """PiSSA's product, split as PiSSA splits it."""
    u, s, vt = torch.linalg.svd(base.weight, full_matrices=False)
    root = torch.sqrt(s[:rank] / scaling)
    return root[:, None] * vt[:rank], u[:, :rank] * root
