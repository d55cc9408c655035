"""Initialisations that draw random numbers and look at nothing but the layer's shape."""

import math
from functools import partial

import torch
from torch import Generator, Tensor

from sweep.adapters.inits.init import BaseWeight, Init


@Init
def kaiming(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A ~ U(−1/√in, 1/√in), B = 0: ``kaiming_uniform_(a=√5)``, the default of the authors' code and of PEFT."""
    bound = 1 / math.sqrt(base.in_features)
    lora_A = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=rng)
    return lora_A, torch.zeros(base.out_features, rank)


@Init
def gaussian(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A ~ N(0, 1/rank²), B = 0: PEFT's ``init_lora_weights="gaussian"`` (the standard deviation is 1/rank)."""
    return _randn(rank, base.in_features, rng) / rank, torch.zeros(base.out_features, rank)


@Init
def normal(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A ~ N(0, 1), B = 0: the start that section 4.1 of the LoRA paper describes (Hu et al. 2021)."""
    return _randn(rank, base.in_features, rng), torch.zeros(base.out_features, rank)


@partial(Init, starts_at_base=False)
def both_random(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A, B ~ N(0, 1): the mistake of some tutorials. The trained model does not start from the base."""
    return _randn(rank, base.in_features, rng), _randn(base.out_features, rank, rng)


@Init
def init_b(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A = 0, B ~ U(−1/√rank, 1/√rank): the Init[B] of Hayou et al. 2024, ``kaiming`` with the roles swapped."""
    bound = 1 / math.sqrt(rank)
    lora_B = torch.empty(base.out_features, rank).uniform_(-bound, bound, generator=rng)
    return torch.zeros(rank, base.in_features), lora_B


@partial(Init, even_rank=True)
def orthogonal(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Both factors non-zero from disjoint halves of one orthogonal matrix, so BA = 0; PEFT's ``"orthogonal"``.

    Q is a random orthogonal (rank, rank) matrix; A mixes half of its rows and B the other half, each by a
    Gaussian matrix divided by 10.
    """
    q = torch.linalg.qr(_randn(rank, rank, rng)).Q
    lora_A = _randn(base.in_features, rank // 2, rng) @ q[0::2] / 10
    lora_B = _randn(rank // 2, base.out_features, rng).T @ q[1::2] / 10
    return lora_A.T.contiguous(), lora_B


def _randn(rows: int, columns: int, rng: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=rng)
