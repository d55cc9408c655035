"""Input covariances and gradients of a base on the data to adapt to, for the initialisations that look at data."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Objective(Protocol):
    """What is learnt from a batch; each task defines its own."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, (N,)."""

    def weights(self, targets: Tensor) -> Tensor:
        """The weight of each row in a mean, (N,)."""

    def learnt(self, targets: Tensor) -> Tensor | None:
        """The positions (N, S) that are learnt; None means all."""


class Calibration:
    """Statistics of an untouched base, each computed once for all trials, when first needed.

    Args:
        model: the base; it is read, never changed.
        layers: its linear layers by name.
        objective: what is learnt from them.
        batches: gives the same inputs and targets every time.

    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Linear],
        objective: Objective,
        batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    ):
        self._model, self._layers, self._objective, self._batches = model, layers, objective, batches

    @cached_property
    def covariances(self) -> dict[str, Tensor]:
        """The covariance (in, in) of the inputs of each layer, over all positions that are learnt, in float64."""
        sums: dict[str, Tensor] = {}
        squares: dict[str, Tensor] = {}
        counts = dict.fromkeys(self._layers, 0)
        learnt: Tensor | None = None

        def see(name: str, x: Tensor) -> None:
            is_whole = learnt is not None and x.shape[:-1] == learnt.shape  # a head may see only the learnt positions
            x = (x[learnt] if is_whole else x.flatten(0, -2)).detach().double()
            sums[name] = sums.get(name, 0) + x.sum(0)
            squares[name] = squares.get(name, 0) + x.T @ x
            counts[name] += len(x)

        hooks = [
            layer.register_forward_pre_hook(lambda _, arguments, name=name: see(name, arguments[0]))
            for name, layer in self._layers.items()
        ]
        try:
            with torch.no_grad():
                for inputs, targets in self._batches():
                    learnt = self._objective.learnt(targets)
                    self._model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        means = {name: total / counts[name] for name, total in sums.items()}
        return {name: squares[name] / counts[name] - torch.outer(mean, mean) for name, mean in means.items()}

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The gradient (out, in) of the mean loss over all rows with respect to each layer's weight."""
        weights = {f"{name}.weight": layer.weight.detach().requires_grad_() for name, layer in self._layers.items()}
        totals = [torch.zeros_like(weight) for weight in weights.values()]
        batches = list(self._batches())
        weights_of = [self._objective.weights(targets) for _, targets in batches]
        total_weight = torch.stack([own.sum() for own in weights_of]).sum()
        with torch.enable_grad():
            for (inputs, targets), own in zip(batches, weights_of, strict=True):
                outputs = functional_call(self._model, weights, (inputs,), tie_weights=False)
                mean = (self._objective.loss(outputs, targets) * own).sum() / own.sum()
                # divided in this order, batches of equal weight keep the bits of a mean
                loss = mean / (total_weight / own.sum())
                gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient
        return dict(zip(self._layers, totals, strict=True))
