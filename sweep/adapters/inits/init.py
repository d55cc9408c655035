"""What an initialisation is: how it draws the factors of a layer, and what follows from it for the trial.

With s the scaling, the adapted layer computes W x + s·B A x − s·B₀ A₀ x. The last term exists only for the
initialisations that move a part of W into the adapter: the shared base itself is never rewritten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Generator, Tensor

from sweep.adapters.calibration import Calibration


class BaseWeight:
    """A frozen weight (out, in) and what is derived from it and from data, each computed once for all trials.

    ``calibration`` holds what the base sees of the data, under the ``name`` of the layer; without it, the
    properties that look at data fail.
    """

    def __init__(self, weight: Tensor, name: str = "", calibration: Calibration | None = None):
        self.out_features, self.in_features = weight.shape
        self.name = name
        self._weight = weight.detach()
        self._calibration = calibration

    def copy(self) -> "BaseWeight":
        """The same with numbers of its own."""
        return BaseWeight(self.weight.clone(), self.name, self._calibration)

    @cached_property
    def separate(self) -> "BaseWeight":
        """A copy for plug-ins: whatever they write into it, no trial of ours sees."""
        return self.copy()

    @cached_property
    def weight(self) -> Tensor:
        """W (out, in) in float32, on the CPU."""
        return self._weight.float().cpu()

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, k), S (k,) in descending order, Vᵀ (k, in), with k = min(out, in)."""
        u, s, vt = torch.linalg.svd(self.weight, full_matrices=False)
        return u, s, vt

    @cached_property
    def qr(self) -> tuple[Tensor, Tensor]:
        """Q (out, k) with orthonormal columns and R (k, in)."""
        q, r = torch.linalg.qr(self.weight)
        return q, r

    @cached_property
    def input_directions(self) -> Tensor:
        """(in, in) orthonormal rows: the principal directions of the layer's inputs, by descending variance."""
        covariance = self._data.covariances[self.name]
        return torch.linalg.eigh(covariance.cpu()).eigenvectors.flip(1).T.float()

    @cached_property
    def gradient_svd(self) -> tuple[Tensor, Tensor]:
        """U (out, k) and Vᵀ (k, in) of the first gradient, by descending singular value."""
        u, _, vt = torch.linalg.svd(self._data.gradients[self.name].float().cpu(), full_matrices=False)
        return u, vt

    @property
    def _data(self) -> Calibration:
        assert self._calibration is not None, "this initialisation looks at data, and there is no calibration"
        return self._calibration


Draw = Callable[[BaseWeight, int, float, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Init:
    """How the factors of a layer start, and what follows from it.

    Attributes:
        draw: maps (base, rank, scaling, rng) to ``lora_A`` (rank, in) and ``lora_B`` (out, rank), in float32 on the
            CPU; every random number comes from ``rng``.
        moves_base: s·BA is taken out of the base, so that the trial starts at the base.
        starts_at_base: BA = 0, or ``moves_base``; otherwise trials do not start at the base.
        trains_B: B is trained; otherwise it stays as it was drawn.
        vectors: how many vectors there are to take from a layer: "min" of out and in, or "in"; a higher rank is
            refused before anything starts. None where any rank can be drawn.
        even_rank: an odd rank is refused.
        looks_at_data: ``draw`` needs the inputs or gradients of the base on the data to adapt to.
        note: what the trial's record should say about a layer (out, in) at this rank, if anything.

    """

    draw: Draw
    moves_base: bool = False
    starts_at_base: bool = True
    trains_B: bool = True
    vectors: Literal["min", "in"] | None = None
    even_rank: bool = False
    looks_at_data: bool = False
    note: Callable[[int, int, int], str | None] | None = None
