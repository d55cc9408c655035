"""What a base sees, and where it would move, on the data to adapt to: for the initialisations that look at data."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Calibration:
    """Statistics of an untouched base, each taken once for all trials, when the first of them asks for it.

    Args:
        model: the base; it is read, never changed.
        layers: its linear layers by name.
        loss: maps outputs and targets to the loss of each row.
        batches: gives the same inputs and targets every time, in batches of equal size.

    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Linear],
        loss: Callable[[Tensor, Tensor], Tensor],
        batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    ):
        self._model, self._layers, self._loss, self._batches = model, layers, loss, batches

    @cached_property
    def covariances(self) -> dict[str, Tensor]:
        """The covariance (in, in) of the inputs of each layer, over all rows and positions, in float64."""
        sums: dict[str, Tensor] = {}
        squares: dict[str, Tensor] = {}
        counts = dict.fromkeys(self._layers, 0)

        def see(name: str, x: Tensor) -> None:
            x = x.detach().flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + x.sum(0)
            squares[name] = squares.get(name, 0) + x.T @ x
            counts[name] += len(x)

        hooks = [
            layer.register_forward_pre_hook(lambda _, arguments, name=name: see(name, arguments[0]))
            for name, layer in self._layers.items()
        ]
        try:
            with torch.no_grad():
                for inputs, _ in self._batches():
                    self._model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        means = {name: total / counts[name] for name, total in sums.items()}
        return {name: squares[name] / counts[name] - torch.outer(mean, mean) for name, mean in means.items()}

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The gradient (out, in) of the mean loss with respect to each layer's weight."""
        weights = {f"{name}.weight": layer.weight.detach().requires_grad_() for name, layer in self._layers.items()}
        totals = [torch.zeros_like(weight) for weight in weights.values()]
        batches = list(self._batches())
        with torch.enable_grad():
            for inputs, targets in batches:
                outputs = functional_call(self._model, weights, (inputs,), tie_weights=False)
                loss = self._loss(outputs, targets).mean() / len(batches)
                gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient
        return dict(zip(self._layers, totals, strict=True))
