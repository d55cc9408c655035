"""The frozen prefix of a model, up to the first adapted layer: computed once for trials that see the same inputs.

Shapes: T trial, D distinct inputs (trials with equal seeds see equal batches), N rows of one trial.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class SharedPrefix:
    """Expands the rows of D distinct inputs to those of T trials, at one place inside a model.

    Everything before that place is frozen and the same for all trials, so it is computed on D·N rows.
    """

    def __init__(self) -> None:
        self._sees: Tensor | None = None

    def assign(self, sees: Sequence[int], device: torch.device) -> None:
        """From now on, trial t sees distinct input number ``sees[t]``."""
        is_one_each = list(sees) == list(range(len(sees)))
        self._sees = None if is_one_each else torch.tensor(sees, device=device)

    def expand(self, x_DN: Tensor) -> Tensor:
        """Map (D·N, …) to (T·N, …); trial-major rows of all trials are left as they are."""
        if self._sees is None:
            return x_DN
        distinct = int(self._sees.max()) + 1
        return x_DN.unflatten(0, (distinct, -1))[self._sees].flatten(0, 1)

    def expand_before(self, stage: nn.Module) -> None:
        """Expand the first argument of ``stage`` whenever it is called."""
        stage.register_forward_pre_hook(self._hook, prepend=True)

    def _hook(self, _stage: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = arguments
        return self.expand(first), *others
