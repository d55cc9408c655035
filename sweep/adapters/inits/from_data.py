"""Initialisations that look at the data to adapt to: the same rows whatever the trial's seed is."""

from functools import partial

import torch
from torch import Generator, Tensor

from sweep.adapters.inits.init import BaseWeight, Init

LORA_GA_GAMMA = 16
"""Shrinks the factors of ``lora_ga``; the value of the authors' code (the square of the paper's γ)."""


@partial(Init, vectors="in", looks_at_data=True)
def eva(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A = the principal directions of the layer's inputs, B = 0 (Paischer et al. 2024), with equal ranks (ρ = 1)."""
    return base.input_directions[:rank], torch.zeros(base.out_features, rank)


def _reuses_vectors(out_features: int, in_features: int, rank: int) -> str | None:
    few = min(out_features, in_features) < 2 * rank
    return f"has fewer than {2 * rank} singular vectors; B takes the last {rank}" if few else None


@partial(Init, moves_base=True, vectors="min", looks_at_data=True, note=_reuses_vectors)
def lora_ga(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A and B from the first gradient U S Vᵀ (LoRA-GA; Wang et al. 2024).

    A = c·Vᵀ[:r] and B = c·U[:, r:2r] with c = out^¼/√γ, as in the authors' code (``ArB2r``, ``stable``). A layer with
    fewer than 2r singular vectors gives the last r to B. PEFT multiplies B by the singular values as well and leaves
    A unscaled.
    """
    u, vt = base.gradient_svd
    size = base.out_features**0.25 / LORA_GA_GAMMA**0.5
    begin = min(rank, len(vt) - rank)
    return size * vt[:rank], size * u[:, begin : begin + rank]
