"""How the two factors of a LoRA start: a registry of named initialisations.

With s the scaling, the adapted layer computes W x + s·B A x − s·B₀ A₀ x, where the last term exists only for
the initialisations that move a part of W into the adapter: the shared base itself is never rewritten. Those
that look at the data to adapt to see the same rows whatever the trial's seed is.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sweep.adapters.calibration import Calibration
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import rank_of
from sweep.errors import ConfigError

LORA_GA_GAMMA = 16
"""Shrinks the factors of ``lora_ga``; the value of the authors' code (the square of the paper's γ)."""


class Factors(NamedTuple):
    """A (rank, in) and B (out, rank), and whether s·BA was taken out of the base."""

    lora_A: Tensor
    lora_B: Tensor
    from_base: bool = False


class BaseWeight:
    """A frozen weight (out, in) and what is derived from it and its data, each once for all trials that need it.

    ``calibration`` knows the data, under the name of the layer; without it no initialisation can look at them.
    """

    def __init__(self, weight: Tensor, name: str = "", calibration: Calibration | None = None):
        self.out_features, self.in_features = weight.shape
        self._weight = weight.detach()
        self._name, self._calibration = name, calibration

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, k), S (k,) in descending order, Vᵀ (k, in), with k = min(out, in)."""
        u, s, vt = torch.linalg.svd(self._weight.float().cpu(), full_matrices=False)
        return u, s, vt

    @cached_property
    def qr(self) -> tuple[Tensor, Tensor]:
        """Q (out, k) with orthonormal columns and R (k, in)."""
        q, r = torch.linalg.qr(self._weight.float().cpu())
        return q, r

    @cached_property
    def input_directions(self) -> Tensor:
        """(in, in) orthonormal rows: the principal directions of the layer's inputs, by falling variance."""
        assert self._calibration is not None
        directions = torch.linalg.eigh(self._calibration.covariances[self._name].cpu()).eigenvectors
        return directions.flip(1).T.float()

    @cached_property
    def gradient_svd(self) -> tuple[Tensor, Tensor]:
        """U (out, k) and Vᵀ (k, in) of the first gradient, by falling singular value."""
        assert self._calibration is not None
        u, _, vt = torch.linalg.svd(self._calibration.gradients[self._name].float().cpu(), full_matrices=False)
        return u, vt


Initialise = Callable[[BaseWeight, int, float, Generator], Factors]


def kaiming(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A ~ U(−1/√in, 1/√in), B = 0: ``kaiming_uniform_(a=√5)``, the default of the authors' code and of PEFT."""
    bound = 1 / math.sqrt(base.in_features)
    lora_A = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=rng)
    return Factors(lora_A, torch.zeros(base.out_features, rank))


def gaussian(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A ~ N(0, 1/rank²), B = 0: PEFT's ``init_lora_weights="gaussian"`` (the standard deviation is 1/rank)."""
    return Factors(_randn(rank, base.in_features, rng) / rank, torch.zeros(base.out_features, rank))


def normal(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A ~ N(0, 1), B = 0: the start that section 4.1 of the LoRA paper describes."""
    return Factors(_randn(rank, base.in_features, rng), torch.zeros(base.out_features, rank))


def both_random(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A, B ~ N(0, 1): the mistake of some tutorials. The trained model does not start from the base."""
    return Factors(_randn(rank, base.in_features, rng), _randn(base.out_features, rank, rng))


def init_b(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A = 0, B ~ U(−1/√rank, 1/√rank): the Init[B] of Hayou et al. 2024, ``kaiming`` with the roles swapped."""
    bound = 1 / math.sqrt(rank)
    lora_B = torch.empty(base.out_features, rank).uniform_(-bound, bound, generator=rng)
    return Factors(torch.zeros(rank, base.in_features), lora_B)


def orthogonal(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """Both factors non-zero from disjoint halves of one orthogonal matrix, so BA = 0; PEFT's ``"orthogonal"``.

    The rank must be even. Q is a random orthogonal (rank, rank) matrix; A mixes half of its rows and B the
    other half, each by a Gaussian matrix divided by 10.
    """
    q = torch.linalg.qr(_randn(rank, rank, rng)).Q
    lora_A = _randn(base.in_features, rank // 2, rng) @ q[0::2] / 10
    lora_B = _randn(rank // 2, base.out_features, rng).T @ q[1::2] / 10
    return Factors(lora_A.T.contiguous(), lora_B)


def pissa(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """s·BA = the top singular triplets of W, split evenly (Meng et al. 2024). W = U S Vᵀ, B = U√(S/s)."""
    return _from_triplets(base, slice(None, rank), scaling)


def milora(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """As PiSSA with the bottom singular triplets (Wang et al. 2024)."""
    full_rank = min(base.out_features, base.in_features)
    return _from_triplets(base, slice(full_rank - rank, None), scaling)


def olora(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """W = QR; B = the first columns of Q, A = the first rows of R (Büyükakyüz 2024), and s·BA leaves the base."""
    q, r = base.qr
    return Factors(r[:rank].contiguous(), q[:, :rank].contiguous(), from_base=True)


def mica(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A = 0, B = the bottom left singular vectors of W, which stay frozen (MiCA, arXiv 2604.01694; PEFT's ``"mica"``)."""
    u, _, _ = base.svd
    return Factors(torch.zeros(rank, base.in_features), u[:, -rank:])


def eva(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A = the principal directions of the layer's inputs, B = 0 (Paischer et al. 2024), with equal ranks (ρ = 1)."""
    return Factors(base.input_directions[:rank], torch.zeros(base.out_features, rank))


def lora_ga(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> Factors:
    """A and B from the first gradient U S Vᵀ, and s·BA leaves the base (LoRA-GA; Wang et al. 2024).

    A = c·Vᵀ[:r] and B = c·U[:, r:2r] with c = out^¼/√γ, as in the authors' code (``ArB2r``, ``stable``). A layer with
    fewer than 2r singular vectors gives the last r to B. PEFT multiplies B by the singular values as well and leaves
    A unscaled.
    """
    u, vt = base.gradient_svd
    size = base.out_features**0.25 / LORA_GA_GAMMA**0.5
    begin = min(rank, len(vt) - rank)
    return Factors(size * vt[:rank], size * u[:, begin : begin + rank], from_base=True)


INITS: dict[str, Initialise] = {
    function.__name__: function
    for function in (
        kaiming, gaussian, normal, both_random, init_b, orthogonal, pissa, milora, olora, mica, eva, lora_ga,
    )
}  # fmt: skip
MOVE_THE_BASE = frozenset({"pissa", "milora", "olora", "lora_ga"})
FREEZE_B = frozenset({"mica"})


def check(adapter: AdapterOptions, shapes: dict[str, tuple[int, int]]) -> list[str]:
    """Compare the ranks with the (out, in) shapes of the targeted layers.

    Returns:
        Notes for the record: layers whose full rank is already below that of their adapter.

    Raises:
        ConfigError: no layer can hold its rank; what the initialisation takes its vectors from has fewer than
            that in some layer; or an odd rank with ``orthogonal``.

    """
    ranks = {name: rank_of(adapter, name) for name in shapes}
    asked = f"adapter.rank = {adapter.rank}" + (f", rank_pattern = {adapter.rank_pattern}" if adapter.rank_pattern else "")  # fmt: skip
    small = [name for name, shape in shapes.items() if min(shape) < ranks[name]]
    if len(small) == len(shapes):
        largest = max(min(shape) for shape in shapes.values())
        raise ConfigError([f"{asked}: no targeted layer can hold it; the largest possible rank here is {largest}"])
    vectors = {name: shape[1] if adapter.init == "eva" else min(shape) for name, shape in shapes.items()}
    lacking = [name for name in small if vectors[name] < ranks[name]]
    if lacking and adapter.init in MOVE_THE_BASE | FREEZE_B | {"eva"}:
        raise ConfigError([f"{asked}: init {adapter.init} takes {ranks[lacking[0]]} singular vectors, and {', '.join(lacking)} has only {vectors[lacking[0]]}; lower the rank, or leave these layers out of adapter.targets"])  # fmt: skip
    if adapter.init == "orthogonal" and any(rank % 2 for rank in ranks.values()):
        raise ConfigError([f"{asked}: init orthogonal needs an even rank"])
    notes = [f"rank {ranks[name]} is above the full rank {min(shapes[name])} of {name}" for name in small]
    if adapter.init == "lora_ga":
        narrow = [name for name in shapes if min(shapes[name]) < 2 * ranks[name]]
        notes += [f"init lora_ga: {name} has fewer than {2 * ranks[name]} singular vectors; B takes the last {ranks[name]}" for name in narrow]  # fmt: skip
    return notes


def _from_triplets(base: BaseWeight, kept: slice, scaling: float) -> Factors:
    u, s, vt = base.svd
    root = torch.sqrt(s[kept] / scaling)
    return Factors(root[:, None] * vt[kept], u[:, kept] * root, from_base=True)


def _randn(rows: int, columns: int, rng: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=rng)
