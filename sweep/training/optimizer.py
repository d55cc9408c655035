"""Optimizers over a matrix with one row for each trial, so that every trial has its own rate, decay and norm.

Shapes: T trial, P trained numbers of one trial (padding included). The arithmetic follows torch.optim's
single-tensor implementations operation for operation.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sweep.training.options import OptimizerOptions


class TrialRows:
    """The trained numbers of a pack and their gradients, (T, P) each; the model's parameters become views."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], trials: int):
        self.parameters = dict(parameters)
        first = next(iter(self.parameters.values()))
        widths = [parameter.numel() // trials for parameter in self.parameters.values()]
        self.values = torch.empty(trials, sum(widths), device=first.device, dtype=first.dtype)
        self.gradients = torch.zeros_like(self.values)
        self._widths = widths
        self._gradient_views = self._views(self.gradients)
        for view, parameter in zip(self._views(self.values), self.parameters.values(), strict=True):
            view.copy_(parameter.data)
            parameter.data = view

    def collect(self) -> dict[str, bool]:
        """Move the parameters' gradients into ``gradients``; returns which parameters had one."""
        received = {name: parameter.grad is not None for name, parameter in self.parameters.items()}
        for view, parameter in zip(self._gradient_views, self.parameters.values(), strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
                parameter.grad = None
        return received

    def clip(self, max_norm: Tensor) -> None:
        """Scale each trial's gradient to a norm of at most ``max_norm`` (T, 1), as ``clip_grad_norm_`` does."""
        squares = torch.zeros_like(max_norm)
        for block in self.gradients.split(self._widths, dim=1):
            squares += block.square().sum(1, keepdim=True)
        self.gradients.mul_((max_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0))

    def broadcast(self, factors: Tensor) -> Tensor:
        """The factor of each trained number, from one for each trial (T, 1) or one for each tensor (T, tensors)."""
        if factors.shape[1] == 1:
            return factors
        widths = torch.tensor(self._widths, device=factors.device)
        return factors.repeat_interleave(widths, dim=1, output_size=self.values.shape[1])

    def select(self, matrix: Tensor, other: "TrialRows", positions: Sequence[int]) -> Tensor:
        """The rows of some of the trials in ``matrix``, moved from the layout of ``other`` to ours.

        Args:
            matrix: (S, P) for the S trials of ``other``.
            other: rows with all of our tensors, and perhaps more.
            positions: where our T trials are among those S.

        """
        theirs = dict(zip(other.parameters, other._views(matrix), strict=True))
        selected = torch.empty_like(self.values)
        for name, view in zip(self.parameters, self._views(selected), strict=True):
            view.copy_(theirs[name][list(positions)])
        return selected

    def _views(self, matrix: Tensor) -> list[Tensor]:
        blocks = matrix.split(self._widths, dim=1)
        return [
            block.view(parameter.shape) if len(matrix) == 1 else block.unflatten(1, parameter.shape[1:])
            for block, parameter in zip(blocks, self.parameters.values(), strict=True)
        ]


class Optimizer(Protocol):
    """Updates a pack's rows in place from their gradients."""

    def step(self, lr: Tensor) -> None:
        """Do one update with learning rates ``lr`` in float64, (T, 1) or one for each tensor (T, tensors)."""

    def narrow(self, rows: TrialRows, positions: Sequence[int]) -> None:
        """Continue with ``rows``, which hold the trials that were at ``positions`` so far."""


class Adam:
    """Adam (Kingma and Ba 2015); with ``decoupled`` weight decay it is AdamW (Loshchilov and Hutter 2019)."""

    def __init__(self, rows: TrialRows, settings: Sequence[OptimizerOptions], decoupled: bool):
        self.rows, self.decoupled = rows, decoupled
        (self.beta1, self.beta2), self.eps = settings[0].betas, settings[0].eps
        self.decay = _column([setting.weight_decay for setting in settings], rows.values.device)
        self.mean, self.square = torch.zeros_like(rows.values), torch.zeros_like(rows.values)
        self.scratch, self.updates = torch.empty_like(rows.values), 0

    def step(self, lr: Tensor) -> None:
        """Do one update with learning rates ``lr`` in float64, (T, 1) or one for each tensor (T, tensors)."""
        self.updates += 1
        values, gradients = self.rows.values, self.rows.gradients
        if self.decay.any():
            if self.decoupled:
                values.mul_(self.rows.broadcast((1 - lr * self.decay).to(values.dtype)))
            else:
                gradients.addcmul_(values, self.decay.to(values.dtype))
        self.mean.lerp_(gradients, 1 - self.beta1)
        self.square.mul_(self.beta2).addcmul_(gradients, gradients, value=1 - self.beta2)
        torch.sqrt(self.square, out=self.scratch)
        self.scratch.div_((1 - self.beta2**self.updates) ** 0.5).add_(self.eps)
        step_size = self.rows.broadcast((-lr / (1 - self.beta1**self.updates)).to(values.dtype))
        values.add_((self.mean * step_size).div_(self.scratch))

    def narrow(self, rows: TrialRows, positions: Sequence[int]) -> None:
        """Continue with ``rows``, which hold the trials that were at ``positions`` so far."""
        self.mean, self.square = (rows.select(moment, self.rows, positions) for moment in (self.mean, self.square))
        self.rows, self.decay, self.scratch = rows, self.decay[list(positions)], torch.empty_like(rows.values)


class SGD:
    """Stochastic gradient descent with momentum and L2 weight decay."""

    def __init__(self, rows: TrialRows, settings: Sequence[OptimizerOptions]):
        self.rows, self.momentum = rows, settings[0].momentum
        self.decay = _column([setting.weight_decay for setting in settings], rows.values.device)
        self.velocity: Tensor | None = None

    def step(self, lr: Tensor) -> None:
        """Do one update with learning rates ``lr`` in float64, (T, 1) or one for each tensor (T, tensors)."""
        values, update = self.rows.values, self.rows.gradients
        if self.decay.any():
            update = torch.addcmul(update, values, self.decay.to(values.dtype))
        if self.momentum:
            if self.velocity is None:
                self.velocity = update.clone()
            else:
                self.velocity.mul_(self.momentum).add_(update)
            update = self.velocity
        values.addcmul_(update, self.rows.broadcast((-lr).to(values.dtype)))

    def narrow(self, rows: TrialRows, positions: Sequence[int]) -> None:
        """Continue with ``rows``, which hold the trials that were at ``positions`` so far."""
        if self.velocity is not None:
            self.velocity = rows.select(self.velocity, self.rows, positions)
        self.rows, self.decay = rows, self.decay[list(positions)]


def build(rows: TrialRows, settings: Sequence[OptimizerOptions]) -> Optimizer:
    """The optimizer of a pack, whose trials share all but learning rates, weight decay, schedule and clipping."""
    match settings[0].name:
        case "sgd":
            return SGD(rows, settings)
        case name:
            return Adam(rows, settings, decoupled=name == "adamw")


def lr_ratios(rows: TrialRows, settings: Sequence[OptimizerOptions]) -> Tensor:
    """What LoRA+ multiplies the learning rate by: (T, tensors) in float64, or (T, 1) of ones where no trial uses it.

    A has the rate itself; B has ``lr_ratio`` times it, and so have a trained bias and the magnitude of DoRA, as in
    the authors' code and in PEFT. Weights that are trained in full have the rate itself.
    """
    ratios = _column([setting.lr_ratio for setting in settings], rows.values.device)
    if bool((ratios == 1).all()):
        return ratios
    slow = [name.endswith((".lora_A", ".weight")) for name in rows.parameters]
    return torch.where(torch.tensor(slow, device=ratios.device), 1.0, ratios)


def clip_norms(settings: Sequence[OptimizerOptions], device: torch.device) -> Tensor | None:
    """The norm (T, 1) to clip each trial to, infinite where it is not clipped; None when none is."""
    norms = [setting.clip_norm for setting in settings]
    if not any(norms):
        return None
    return _column([norm or float("inf") for norm in norms], device).float()


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]
