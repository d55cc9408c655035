"""Initialisations that decompose the weight of the layer. W = U S Vᵀ, singular values in descending order."""

from functools import partial

import torch
from torch import Generator, Tensor

from sweep.adapters.inits.init import BaseWeight, Init


@partial(Init, moves_base=True, vectors="min")
def pissa(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """s·BA = the top singular triplets of W, split evenly: B = U√(S/s), A = √(S/s)Vᵀ (Meng et al. 2024)."""
    return _from_triplets(base, slice(None, rank), scaling)


@partial(Init, moves_base=True, vectors="min")
def milora(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """As PiSSA with the bottom singular triplets (Wang et al. 2024)."""
    full_rank = min(base.out_features, base.in_features)
    return _from_triplets(base, slice(full_rank - rank, None), scaling)


@partial(Init, moves_base=True, vectors="min")
def olora(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """W = QR; B = the first columns of Q, A = the first rows of R (Büyükakyüz 2024)."""
    q, r = base.qr
    return r[:rank].contiguous(), q[:, :rank].contiguous()


@partial(Init, trains_B=False, vectors="min")
def mica(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A = 0, B = the bottom left singular vectors of W (MiCA, arXiv 2604.01694; PEFT's ``"mica"``)."""
    u, _, _ = base.svd
    return torch.zeros(rank, base.in_features), u[:, -rank:]


def _from_triplets(base: BaseWeight, kept: slice, scaling: float) -> tuple[Tensor, Tensor]:
    u, s, vt = base.svd
    root = torch.sqrt(s[kept] / scaling)
    return root[:, None] * vt[kept], u[:, kept] * root
