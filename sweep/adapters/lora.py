"""The LoRA layer, for T trials at once: one frozen linear layer, a low-rank update of its own for each trial.

Shapes: T trial, N rows of one trial, I in_features, O out_features, R rank (of the widest trial; the others
are padded with zeros). Joined letters are folded axes: rows are trial-major, so ``x_TN_I`` holds all rows of
trial 0, then all rows of trial 1, and the model around the layer need not know that there are several trials.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from sweep.adapters.spread import Spread


class LoRALinear(nn.Module):
    """y = W x + b + s·B A dropout(x) − s·B₀ A₀ x, with W and b shared and frozen (Hu et al. 2021).

    A rank that is padded, or a layer that a trial does not target, is a zero row of ``lora_A`` with a zero
    column of ``lora_B``: both have zero gradient, so every optimizer here leaves them at zero.

    Args:
        base: the frozen layer, weight (O, I).
        lora_A: (T, R, I), trained.
        lora_B: (T, O, R), trained.
        scaling: (T,), the factor s of each trial.
        dropout: (T,) probabilities, acting on the input of the LoRA path only, while training.
        dropout_rng: a generator for each trial.
        frozen_B: the B (T, O, R) of trials that do not train it, whose ``lora_B`` is zero and stays so; zero for the
            others; None when every trial trains its B.
        moved: the frozen A₀ (T, R, I) and B₀ (T, O, R) of trials whose initialisation moved s·B₀A₀ out of
            the base, zero for the others; None when no trial's did.
        bias: (T, O), trained where ``trains_bias`` (T,) is true; None when no trial trains it.

    """

    scaling: Tensor
    frozen_B: Tensor | None
    is_frozen: Tensor
    moved_A: Tensor | None
    moved_B: Tensor | None
    trains_bias: Tensor | None

    def __init__(
        self,
        base: nn.Linear,
        lora_A: nn.Parameter,
        lora_B: nn.Parameter,
        scaling: Tensor,
        dropout: Sequence[float],
        dropout_rng: Sequence[Generator],
        frozen_B: Tensor | None = None,
        moved: tuple[Tensor, Tensor] | None = None,
        bias: nn.Parameter | None = None,
        trains_bias: Tensor | None = None,
    ):
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = lora_A, lora_B
        self.register_buffer("scaling", scaling.view(-1, 1, 1), persistent=False)
        self.dropout, self.dropout_rng = tuple(dropout), tuple(dropout_rng)
        self.register_buffer("frozen_B", frozen_B, persistent=False)
        is_frozen = None if frozen_B is None else (frozen_B != 0).flatten(1).any(1)[:, None, None]
        self.register_buffer("is_frozen", is_frozen, persistent=False)
        moved_A, moved_B = moved or (None, None)
        self.register_buffer("moved_A", moved_A, persistent=False)
        self.register_buffer("moved_B", moved_B, persistent=False)
        self.bias = bias
        self.register_buffer("trains_bias", trains_bias, persistent=False)
        self.enabled = True
        self.spread: Spread | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (T·N, …, I) to (T·N, …, O).

        With ``spread`` set, where the trials part at this layer, x holds the (D·N, …, I) rows of the distinct
        inputs, and W x + b is computed on them alone.
        """
        shared = None
        if self.spread is not None:
            shared = self.spread.rows(self.base(x))
            x = self.spread.rows(x)
        if not self.enabled:
            return self.base(x) if shared is None else shared
        trials = len(self.lora_A)
        x_T_N_I = x.reshape(trials, -1, x.shape[-1])
        dropped_T_N_I = self._drop(x_T_N_I) if self.training and any(self.dropout) else None
        shared_T_N_O = None if shared is None else shared.reshape(trials, -1, shared.shape[-1])
        y_T_N_O = self._adapted(x_T_N_I, dropped_T_N_I, shared_T_N_O)
        if self.bias is not None and self.trains_bias is not None:
            # the difference, so that a neighbour without a bias of its own adds an exact zero
            y_T_N_O = y_T_N_O + torch.where(self.trains_bias[:, None], self.bias - self.base.bias, 0.0)[:, None]
        return y_T_N_O.view(*x.shape[:-1], -1)

    def output_factors(self) -> Tensor:
        """B (T, O, R) of each trial, trained or frozen; only the trained ones have a gradient."""
        if self.frozen_B is None:
            return self.lora_B
        return torch.where(self.is_frozen, self.frozen_B, self.lora_B)

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

    def own_bias(self, trial: int) -> Tensor | None:
        """The bias (O,) that trial number ``trial`` uses; None where the layer has none."""
        if self.bias is None or self.trains_bias is None or not self.trains_bias[trial]:
            return self.base.bias
        return self.bias[trial].detach()

    def _adapted(self, x_T_N_I: Tensor, dropped_T_N_I: Tensor | None, shared_T_N_O: Tensor | None) -> Tensor:
        y_T_N_O = _AdaptedLinear.apply(
            x_T_N_I,
            dropped_T_N_I,
            shared_T_N_O,
            self.base.weight,
            self.base.bias,
            self.lora_A,
            self.output_factors(),
            self.scaling,
        )
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
        weight: Tensor,
        bias: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        scaling: Tensor,
    ) -> Tensor:
        inner_T_N_I = x_T_N_I if dropped_T_N_I is None else dropped_T_N_I
        u_T_N_R = torch.bmm(inner_T_N_I, lora_A.mT).mul_(scaling)
        if shared_T_N_O is None:
            y_T_N_O = F.linear(x_T_N_I.flatten(0, 1), weight, bias).view(*x_T_N_I.shape[:2], -1)
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
        return grad_x, grad_dropped, None, None, None, grad_A, grad_B, None
