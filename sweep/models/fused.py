"""Two pieces of a Llama in fewer passes over memory than PyTorch's own, forwards and backwards.

Together they take a tenth off a training step on a CPU (benchmarks/LOG.md). Shapes as in ``llama.py``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """y = w · x / √(mean(x²) + ε) over the last axis (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position."""
        return _Normalise.apply(x, self.weight, self.eps)


def rotate(x_B_H_S_E: Tensor, cos_S_E: Tensor, sin_S_E: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E/2) of each head by their position's angles (Su et al. 2021)."""
    return _Rotate.apply(x_B_H_S_E, cos_S_E, sin_S_E)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        grad_weight = (g * x * scale).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        gw = g * weight
        along_x = (gw * x).sum(-1, keepdim=True).mul_(scale.pow(3)).div_(-x.shape[-1])
        return gw.mul_(scale).addcmul_(x, along_x), grad_weight, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_B_H_S_E: Tensor, cos_S_E: Tensor, sin_S_E: Tensor) -> Tensor:
        ctx.save_for_backward(cos_S_E, sin_S_E)
        return _turned(x_B_H_S_E, cos_S_E, sin_S_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_B_H_S_E: Tensor) -> tuple[Tensor, None, None]:
        cos_S_E, sin_S_E = ctx.saved_tensors
        return _turned(g_B_H_S_E, cos_S_E, -sin_S_E), None, None


def _turned(x_B_H_S_E: Tensor, cos_S_E: Tensor, sin_S_E: Tensor) -> Tensor:
    half = x_B_H_S_E.shape[-1] // 2
    turned = x_B_H_S_E * cos_S_E
    turned[..., :half].addcmul_(x_B_H_S_E[..., half:], sin_S_E[:, :half], value=-1)
    turned[..., half:].addcmul_(x_B_H_S_E[..., :half], sin_S_E[:, half:])
    return turned
