"""One trial alone on this machine: the time of its updates, the memory that it holds, and its arithmetic.

Values do not matter for that: the base starts at random where it would be pre-trained, and an initialisation draws from
stand-ins of the base's decompositions.
"""

import statistics
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sweep.adapters.fold import fold, linear_layers
from sweep.adapters.inits import BaseWeight
from sweep.hardware import threads
from sweep.launch.cost import train_briefly, update_times
from sweep.models.model import Model
from sweep.resolve import ResolvedTrial

ATEN = torch.ops.aten
PRODUCTS = {product: flop_registry[product] for product in (ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm)}
PRODUCTS |= {ATEN.addmm_: PRODUCTS[ATEN.addmm], ATEN.baddbmm_: PRODUCTS[ATEN.baddbmm]}
"""Matrix products, those in place too, with PyTorch's formulas for their FLOPs; fused attention is not among them."""


class Bench:
    """One trial, folded alone onto ``model``, which others share; it has trained a little, so that it is warm.

    Attributes:
        update_s: seconds of an update, roughly.
        peak_bytes: the most bytes that the tensors of the trial hold at once while it trains; the base's own are not
            among them.
        flops: FLOPs of the matrix products of an update, 2 for each multiplication and addition, at padded ranks.

    """

    def __init__(self, trial: ResolvedTrial, model: Model):
        self._trial, self._task = trial, trial.task.build(trial.cache_folder)
        weights = {name: _AnyDecomposition(layer.weight, name) for name, layer in linear_layers(model).items()}
        self._folded = fold(
            model, [trial.adapter], [trial.targets], [trial.seed], trial.padded_rank, weights, trial.saved
        )
        with threads(1), Footprint() as footprint:
            train_briefly(self._folded, [trial], self._task, steps=1)
        self.peak_bytes = footprint.peak_bytes + self._frozen_bytes()
        self.flops = footprint.flops
        [self.update_s] = self.update_times(1)

    def update_times(self, count: int) -> list[float]:
        """Seconds of each of ``count`` updates, after one that is not timed."""
        with threads(1):
            return update_times(self._folded, [self._trial], self._task, count)

    def perf(self, times: Sequence[float], of_all: Sequence[float]) -> dict[str, float]:
        """What a record says of the trial alone: by the seconds of updates in its round, and in all rounds."""
        rows, positions = (
            self._trial.training.batch_size * self._trial.training.accumulation,
            self._task.target.positions,
        )
        step_s = statistics.median(times)
        low_s, _, high_s = statistics.quantiles(of_all, n=4, method="inclusive")
        found = {
            "alone_step_ms": step_s * 1e3,
            "alone_step_iqr_ms": (high_s - low_s) * 1e3,
            "alone_samples_per_second": rows / step_s,
            "alone_peak_memory_mb": self.peak_bytes / 1e6,
            "alone_step_gflops": self.flops / 1e9,
            "alone_base_memory_mb": sum(_sizes(self._folded.base).values()) / 1e6,
        }
        return found | ({"alone_tokens_per_second": rows * positions / step_s} if positions > 1 else {})

    def _frozen_bytes(self) -> int:
        """Bytes of what the trial holds besides the base and its trained tensors, which training allocates anew."""
        elsewhere = _sizes(self._folded.base).keys() | {
            parameter.untyped_storage().data_ptr() for parameter in self._folded.parameters.values()
        }
        return sum(size for place, size in _sizes(self._folded.model).items() if place not in elsewhere)


class Footprint(TorchDispatchMode):
    """Counts what is computed inside its block.

    Attributes:
        peak_bytes: the most bytes that tensors made there held at once. Unlike the memory of the process it is the same
            at each run, and what was there before is not in it.
        flops: of matrix products, 2 for each multiplication and addition.

    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = self.flops = self._bytes = 0
        self._counted: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute ``func``, count its arithmetic, and the memory of its results that is not that of its arguments."""
        given = {tensor.untyped_storage() for tensor in _tensors((args, kwargs))}
        results = func(*args, **(kwargs or {}))
        if flops := PRODUCTS.get(func._overloadpacket):  # type: ignore[attr-defined]
            self.flops += flops(*args, **(kwargs or {}), out_val=results)
        for tensor in _tensors(results):
            storage = tensor.untyped_storage()
            if storage not in given and storage not in self._counted:
                self._counted.add(storage)
                self._hold(storage.nbytes())
                weakref.finalize(storage, self._hold, -storage.nbytes())
        return results

    def _hold(self, size: int) -> None:
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)


class _AnyDecomposition(BaseWeight):
    """A weight whose decompositions have the right shapes and nothing else; the true ones take long."""

    @property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        u, vt = self.gradient_svd
        return u, torch.ones(len(vt)), vt

    @property
    def qr(self) -> tuple[Tensor, Tensor]:
        return self.gradient_svd

    @property
    def input_directions(self) -> Tensor:
        return torch.eye(self.in_features)

    @property
    def gradient_svd(self) -> tuple[Tensor, Tensor]:
        least = min(self.out_features, self.in_features)
        return torch.eye(self.out_features, least), torch.eye(least, self.in_features)


def _sizes(model: nn.Module) -> dict[int, int]:
    """Bytes of the memory of a model's tensors, by its address."""
    storages = (tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers()))
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
