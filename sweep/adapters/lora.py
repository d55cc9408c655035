"""The LoRA layer, for T trials at once: one frozen linear layer, a low-rank update of its own for each trial.

Shapes: T trial, N rows of one trial, I in_features, O out_features, r rank of one trial, R padded rank: the power of
two to which the factors of all trials are padded with zeros. Joined letters are folded axes: rows are trial-major, so
``x_TN_I`` holds all rows of trial 0, then all rows of trial 1, and the model around the layer need not know that there
are several trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from sweep.adapters.shared_prefix import SharedPrefix

PARAMETERS = ("lora_A", "lora_B", "lora_magnitude_vector", "bias")
"""What an adapted layer may train, in the order in which optimizers hold it."""


@dataclass(frozen=True)
class TrialFactors:
    """What one trial starts from in one layer, and what of it the trial trains.

    Attributes:
        lora_A: A (r, I), trained; r is 0 where the trial does not target the layer.
        lora_B: B (O, r).
        scaling: the factor s of B·A.
        dropout: a probability, acting on the input of the LoRA path only, while training.
        dropout_rng: what its masks are drawn from.
        trains_B: whether B is trained; otherwise it stays as it is.
        moves_base: whether s·BA, as it is here, is taken out of the base.
        trains_bias: whether the trial trains a bias of its own, which starts at the base's.

    """

    lora_A: Tensor
    lora_B: Tensor
    scaling: float
    dropout: float
    dropout_rng: Generator
    trains_B: bool = True
    moves_base: bool = False
    trains_bias: bool = False

    @property
    def rank(self) -> int:
        """The rank r of the trial's update; 0 where it does not target the layer."""
        return len(self.lora_A)


class LoRALinear(nn.Module):
    """y = W x + b + s·B A dropout(x) − s·B₀ A₀ x, with W and b shared and frozen (Hu et al. 2021).

    A rank that is padded, or a layer that a trial does not target, is a zero row of ``lora_A`` with a zero
    column of ``lora_B``: both have zero gradient, so every optimizer here leaves them at zero.

    Args:
        base: the frozen layer, weight (O, I).
        trials: what each of the T trials starts from.
        padded_rank: R, at least the largest rank.

    Attributes:
        lora_A: (T, R, I); a parameter that no trial trains has no gradient.
        lora_B: (T, O, R); zero for the trials that do not train it.
        bias: (T, O), used by the trials that train it; None when there are none.
        frozen_B: the B (T, O, R) of the trials that do not train it, zero for the others; None when there are none.
        moved_A: the frozen A₀ (T, R, I) of the trials whose initialisation took s·B₀A₀ out of the base, zero for
            the others; None when there are none. ``moved_B`` is B₀ (T, O, R).
        ranks: the rank of each trial; 0 where it does not target the layer.
        freezes_B: which trials target the layer and do not train B.
        moves_base: which trials target the layer and took s·B₀A₀ out of the base.
        trains_bias: which trials train the bias.

    """

    scaling: Tensor
    frozen_B: Tensor | None
    is_frozen: Tensor
    is_biased: Tensor
    moved_A: Tensor | None
    moved_B: Tensor | None

    def __init__(self, base: nn.Linear, trials: Sequence[TrialFactors], padded_rank: int):
        super().__init__()
        self.base = base
        self.ranks = tuple(trial.rank for trial in trials)
        self.dropout = tuple(trial.dropout for trial in trials)
        self.dropout_rng = tuple(trial.dropout_rng for trial in trials)
        self.freezes_B = tuple(trial.rank > 0 and not trial.trains_B for trial in trials)
        self.moves_base = tuple(trial.rank > 0 and trial.moves_base for trial in trials)
        self.trains_bias = tuple(trial.trains_bias for trial in trials)
        lora_A = torch.zeros(len(trials), padded_rank, base.in_features)
        lora_B = torch.zeros(len(trials), base.out_features, padded_rank)
        for row, trial in enumerate(trials):
            lora_A[row, : trial.rank], lora_B[row, :, : trial.rank] = trial.lora_A, trial.lora_B
        buffers = {
            "scaling": torch.tensor([trial.scaling for trial in trials])[:, None, None],
            "is_frozen": torch.tensor(self.freezes_B)[:, None, None],
            "is_biased": torch.tensor(self.trains_bias)[:, None],
            "frozen_B": _rows(lora_B, self.freezes_B),
            "moved_A": _rows(lora_A, self.moves_base),
            "moved_B": _rows(lora_B, self.moves_base),
        }
        device = base.weight.device
        for name, buffer in buffers.items():
            self.register_buffer(name, None if buffer is None else buffer.to(device), persistent=False)
        lora_B[torch.tensor(self.freezes_B)] = 0.0
        trains_B = any(rank > 0 and not frozen for rank, frozen in zip(self.ranks, self.freezes_B, strict=True))
        self.lora_A = nn.Parameter(lora_A.to(device), requires_grad=any(self.ranks))
        self.lora_B = nn.Parameter(lora_B.to(device), requires_grad=trains_B)
        self.bias = nn.Parameter(base.bias.detach().repeat(len(trials), 1)) if any(self.trains_bias) else None
        self.enabled = True
        self.shared_prefix: SharedPrefix | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (T·N, …, I) to (T·N, …, O).

        With ``shared_prefix`` set, where it ends in this layer, x holds the (D·N, …, I) rows of the distinct
        inputs, and W x + b is computed on them alone.
        """
        shared = None
        if self.shared_prefix is not None:
            shared = self.shared_prefix.expand(self.base(x))
            x = self.shared_prefix.expand(x)
        if not self.enabled:
            return self.base(x) if shared is None else shared
        trials = len(self.lora_A)
        x_T_N_I = x.reshape(trials, -1, x.shape[-1])
        dropped_T_N_I = self._drop(x_T_N_I) if self.training and any(self.dropout) else None
        shared_T_N_O = None if shared is None else shared.reshape(trials, -1, shared.shape[-1])
        y_T_N_O = self._adapted(x_T_N_I, dropped_T_N_I, shared_T_N_O)
        if self.bias is not None:
            # the difference, so that a neighbour without a bias of its own adds an exact zero
            y_T_N_O = y_T_N_O + torch.where(self.is_biased, self.bias - self.base.bias, 0.0)[:, None]
        return y_T_N_O.view(*x.shape[:-1], -1)

    def output_factors(self) -> Tensor:
        """B (T, O, R) of each trial, trained or frozen; only the trained ones have a gradient."""
        if self.frozen_B is None:
            return self.lora_B
        return torch.where(self.is_frozen, self.frozen_B, self.lora_B)

    def factors(self, trial: int) -> dict[str, Tensor]:
        """What trial number ``trial`` adds to the base, without padding: A (r, I) and B (O, r), trained or not.

        By the names of the parameters, as views; nothing where the trial does not target the layer.
        """
        rank = self.ranks[trial]
        if rank == 0:
            return {}
        lora_B = self.frozen_B if self.frozen_B is not None and self.freezes_B[trial] else self.lora_B
        return {"lora_A": self.lora_A[trial, :rank], "lora_B": lora_B[trial, :, :rank]}

    def tensors(self, trial: int) -> dict[str, Tensor]:
        """The ``factors`` of trial number ``trial``, and the bias (O,) that it trains."""
        own = self.factors(trial)
        if self.bias is not None and self.trains_bias[trial]:
            own["bias"] = self.bias[trial]
        return own

    def trained_numbers(self, trial: int) -> dict[str, int]:
        """How many numbers of each parameter trial number ``trial`` trains, padding aside."""
        frozen = {"lora_B"} if self.freezes_B[trial] else set()
        return {name: tensor.numel() for name, tensor in self.tensors(trial).items() if name not in frozen}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of which some trial trains some number."""
        trained = {name for trial in range(len(self.ranks)) for name in self.trained_numbers(trial)}
        return {name: self.get_parameter(name) for name in PARAMETERS if name in trained}

    def generators(self) -> Sequence[Generator]:
        """The generators that a forward pass may draw from."""
        return self.dropout_rng if any(self.dropout) else ()

    def starts_at_base(self) -> bool:
        """Whether every trial, as it stands, computes bit for bit what the base computes: BA = 0 exactly."""
        zero = (self.lora_A == 0).flatten(1).all(1) | (self.output_factors() == 0).flatten(1).all(1)
        has_its_bias = self.bias is None or bool((self.bias == self.base.bias).all())
        return self.moved_A is None and bool(zero.all()) and has_its_bias

    def delta(self, trial: int) -> Tensor:
        """What trial number ``trial`` adds to the weight: s·BA − s·B₀A₀, (O, I)."""
        product = self.output_factors()[trial].detach() @ self.lora_A[trial].detach()
        return product * self.scaling[trial] - self.moved(trial)

    def moved(self, trial: int) -> Tensor:
        """What the initialisation of trial number ``trial`` took out of the base: s·B₀A₀, (O, I)."""
        if self.moved_A is None or self.moved_B is None:
            return torch.zeros_like(self.base.weight)
        return self.moved_B[trial] @ self.moved_A[trial] * self.scaling[trial]

    def moved_factors(self, trial: int) -> tuple[Tensor, Tensor] | None:
        """A₀ (r, I) and B₀ (O, r) of trial number ``trial``, without padding; None where it moved nothing."""
        if self.moved_A is None or self.moved_B is None or not self.moves_base[trial]:
            return None
        rank = self.ranks[trial]
        return self.moved_A[trial, :rank], self.moved_B[trial, :, :rank]

    def own_bias(self, trial: int) -> Tensor | None:
        """The bias (O,) that trial number ``trial`` uses; None where the layer has none."""
        if self.bias is None or not self.trains_bias[trial]:
            return self.base.bias
        return self.bias[trial].detach()

    def _adapted(self, x_T_N_I: Tensor, dropped_T_N_I: Tensor | None, shared_T_N_O: Tensor | None) -> Tensor:
        factors = (self.lora_A, self.output_factors())
        y_T_N_O = _AdaptedLinear.apply(x_T_N_I, dropped_T_N_I, shared_T_N_O, *factors, self)
        return y_T_N_O if self.moved_A is None else y_T_N_O - self._moved_outputs(x_T_N_I)

    def _moved_outputs(self, x_T_N_I: Tensor) -> Tensor:
        assert self.moved_A is not None
        assert self.moved_B is not None
        return torch.bmm(torch.bmm(x_T_N_I, self.moved_A.mT) * self.scaling, self.moved_B.mT)

    def _drop(self, x_T_N_I: Tensor) -> Tensor:
        kept = torch.ones(x_T_N_I.shape)
        for mask, probability, rng in zip(kept, self.dropout, self.dropout_rng, strict=True):
            if probability:
                mask.copy_((torch.rand(mask.shape, generator=rng) >= probability) / (1 - probability))
        return x_T_N_I * kept.to(x_T_N_I)


def _rows(tensor: Tensor, mask: Sequence[bool]) -> Tensor | None:
    """A copy of ``tensor`` with the rows outside ``mask`` at zero; None when no row is left."""
    return torch.where(torch.tensor(mask)[:, None, None], tensor, 0.0) if any(mask) else None


class _AdaptedLinear(torch.autograd.Function):
    """x Wᵀ + b + ((x' Aᵀ)·s) Bᵀ with the low-rank product added in place, forwards and backwards.

    x' is ``dropped`` or, without dropout, x. The shared product is one GEMM over the rows of all trials, or
    comes in as ``shared`` where it needs no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_T_N_I: Tensor,
        dropped_T_N_I: Tensor | None,
        shared_T_N_O: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        layer: LoRALinear,
    ) -> Tensor:
        weight, scaling = layer.base.weight, layer.scaling
        inner_T_N_I = x_T_N_I if dropped_T_N_I is None else dropped_T_N_I
        u_T_N_R = torch.bmm(inner_T_N_I, lora_A.mT).mul_(scaling)
        if shared_T_N_O is None:
            y_T_N_O = F.linear(x_T_N_I.flatten(0, 1), weight, layer.base.bias).view(*x_T_N_I.shape[:2], -1)
        else:
            y_T_N_O = shared_T_N_O
            ctx.mark_dirty(shared_T_N_O)
        y_T_N_O.baddbmm_(u_T_N_R, lora_B.mT)
        ctx.save_for_backward(inner_T_N_I, weight, lora_A, lora_B, u_T_N_R, scaling)
        return y_T_N_O

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_T_N_O: Tensor) -> tuple[Tensor | None, ...]:
        inner_T_N_I, weight, lora_A, lora_B, u_T_N_R, scaling = ctx.saved_tensors
        needs_x, needs_dropped = ctx.needs_input_grad[:2]
        gu_T_N_R = torch.bmm(g_T_N_O, lora_B).mul_(scaling)
        grad_x = grad_dropped = None
        if needs_x:
            grad_x = torch.mm(g_T_N_O.flatten(0, 1), weight).view(inner_T_N_I.shape)
        if needs_dropped:
            grad_dropped = torch.bmm(gu_T_N_R, lora_A)
        elif grad_x is not None:
            grad_x.baddbmm_(gu_T_N_R, lora_A)
        grad_A = torch.bmm(gu_T_N_R.mT, inner_T_N_I)
        grad_B = torch.bmm(g_T_N_O.mT, u_T_N_R)
        return grad_x, grad_dropped, None, grad_A, grad_B, None
