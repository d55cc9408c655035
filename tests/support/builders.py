"""Short ways to say what a test trains: small models, settings with defaults, and batches in a fixed order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from sweep.adapters.calibration import Calibration, Objective
from sweep.adapters.fold import Folded, fold, linear_layers
from sweep.adapters.inits import BaseWeight
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import bucket, widest
from sweep.adapters.targets import select, select_saved
from sweep.models.llama import Llama
from sweep.models.mlp import MLP
from sweep.models.model import Model
from sweep.tasks.mnist.options import MnistOptions
from sweep.tasks.next_token import NextToken
from sweep.tasks.task import Batch, Domain, Task
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.tasks.toy_regression.task import ToyRegression, toy_regression
from sweep.tasks.transformer.options import TransformerOptions
from sweep.training.loop import Callbacks, Row, Rows, Trained, train
from sweep.training.options import OptimizerOptions, TrainingOptions

CPU_INFO = Path("/proc/cpuinfo")
EXACT = (
    torch.backends.mkl.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and (not CPU_INFO.exists() or "GenuineIntel" in CPU_INFO.read_text())
)
"""Whether packed equals alone bit for bit on this processor: MKL has its strict kernels for Intel's with AVX-512.

Elsewhere, on AMD's with AVX-512 too, a product of few rows is summed in another order than one of many.
"""
TOLERANCE = 0.0 if EXACT else 1e-4
OUTPUTS = 1e-6
"""Relative to the largest output: PEFT computes the same products in float32, and sums them in another order."""
TRACE = 1e-5
"""Relative, of the losses over 20 steps of AdamW, beside PEFT."""

FULL = AdapterOptions(kind="full")
NONE = AdapterOptions(kind="none")
NOWHERE = Path("/nonexistent")  # a cache folder that must not be needed


def lora(**changes: Any) -> AdapterOptions:
    """A LoRA of rank 4 and alpha 8 on every layer, with ``changes``."""
    defaults = {
        "kind": "lora",
        "rank": 4,
        "alpha": 8.0,
        "init": "kaiming",
        "targets": "all_linear",
        "scaling": "alpha/rank",
        "dropout": 0.0,
        "bias": "none",
    }
    return AdapterOptions.model_validate(defaults | changes)


def optimizer(**changes: Any) -> OptimizerOptions:
    """AdamW at 1e-3 without weight decay, with ``changes``."""
    defaults = {
        "name": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "momentum": 0.0,
        "schedule": "constant",
        "warmup_steps": 0,
        "clip_norm": None,
    }
    return OptimizerOptions.model_validate(defaults | changes)


def training(**changes: Any) -> TrainingOptions:
    """Twenty steps of batch 8, each logged, with ``changes``."""
    defaults = {
        "steps": 20,
        "batch_size": 8,
        "accumulation": 1,
        "checkpointing": False,
        "log_every": 1,
        "eval_every": None,
    }
    return TrainingOptions.model_validate(defaults | changes)


def regression(**changes: Any) -> ToyRegressionOptions:
    """The planted shift of rank 3 on a linear map 12 → 8, with ``changes``."""
    defaults = {
        "name": "toy_regression",
        "data": "planted",
        "in_features": 12,
        "out_features": 8,
        "hidden": (),
        "samples": 64,
        "held_out": 32,
        "shift_rank": 3,
        "shift_scale": 1.0,
        "noise": 0.1,
        "inputs": "white",
        "data_seed": 0,
    }
    return ToyRegressionOptions.model_validate(defaults | changes)


def tutorial(**changes: Any) -> ToyRegressionOptions:
    """The 64 → 10 data of the introductory tutorial, under its seed 42."""
    return regression(data="tutorial", in_features=64, out_features=10, data_seed=42, **changes)


def digits(**changes: Any) -> MnistOptions:
    """Embedded digits turned by 60 degrees, and a small network, with ``changes``."""
    pretraining = {"steps": 20, "batch_size": 16, "lr": 1e-3, "schedule": "cosine", "seed": 0}
    defaults = {
        "name": "mnist",
        "data": "embedded",
        "hidden": (24, 16),
        "shift": "rotate",
        "angle": 60.0,
        "digit": 9,
        "pretraining": pretraining,
    }
    return MnistOptions.model_validate(defaults | changes)


def text(**changes: Any) -> TransformerOptions:
    """The built-in texts and a decoder of two narrow layers, with ``changes``."""
    pretraining = {"steps": 5, "batch_size": 4, "lr": 1e-2, "schedule": "cosine", "seed": 0}
    defaults = {
        "name": "transformer",
        "layers": 2,
        "width": 16,
        "heads": 2,
        "hidden": 24,
        "context": 12,
        "eval_windows": 24,
        "source_text": None,
        "target_text": None,
        "pretraining": pretraining,
    }
    return TransformerOptions.model_validate(defaults | changes)


def mlp(*widths: int, seed: int = 0) -> MLP:
    """A frozen perceptron with weights that depend on nothing but ``seed``."""
    return _seeded(lambda: MLP(widths), seed)


def llama(seed: int = 0) -> Llama:
    """A frozen decoder of two layers over 11 tokens, with weights large enough for the layers to matter."""

    def make() -> Llama:
        model = Llama(vocabulary=11, layers=2, width=16, heads=2, hidden=24, context=10)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(10)
        return model

    return _seeded(make, seed)


def _seeded(make: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().requires_grad_(False)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that depend on nothing but ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of ``model``, to see later what has changed."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether both hold the same names and the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def attach(base: Model, *adapters: AdapterOptions, seeds: Sequence[int] | None = None) -> Folded:
    """Fold ``adapters`` onto ``base`` at the layers that they target, calibrated on ``observations``."""
    names = list(linear_layers(base))
    saved = select_saved(adapters[0], [name for name, module in base.named_modules() if list(module.parameters())])
    chosen = [select(adapter, names, base.presets) if adapter.kind == "lora" else [] for adapter in adapters]
    return fold(base, adapters, chosen, seeds or [0] * len(adapters), padded_rank(adapters), calibrated(base), saved)


def padded_rank(adapters: Sequence[AdapterOptions]) -> int:
    """The rank that all of ``adapters``, which are of one bucket or smaller, are padded to."""
    return bucket(max(widest(adapter) for adapter in adapters))


def calibrated(base: Model) -> dict[str, BaseWeight]:
    """The weights of ``base`` with what they see of ``observations``, under the mean square of the outputs as loss."""
    layers = linear_layers(base)
    squares = objective(lambda outputs, _: outputs.square().flatten(1).mean(1))
    calibration = Calibration(base, layers, squares, lambda: observations(base))
    return {name: BaseWeight(layer.weight, name, calibration) for name, layer in layers.items()}


def objective(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """This loss of each row, all of which count the same."""
    ones = staticmethod(lambda targets: torch.ones(len(targets)))
    kind = type("Own", (), {"loss": staticmethod(loss), "weights": ones, "learnt": staticmethod(lambda _: None)})
    return cast(Objective, kind())


def observations(base: Model) -> list[Batch]:
    """Four batches of 16 normal rows for a perceptron, or of 16 windows of 11 tokens for a decoder; no targets."""
    if isinstance(base, MLP):
        return [Batch(x, x) for x in randn(4, 16, base.widths[0], seed=21)]
    windows = torch.randint(11, (4, 16, 8), generator=torch.Generator().manual_seed(21))
    return [Batch(x, x) for x in windows]


@dataclass(frozen=True)
class InOrder:
    """A domain that gives these batches one after the other, from the beginning again after the last."""

    ordered: Sequence[Batch]
    positions: int = 1

    @property
    def held_out(self) -> Batch:
        return self.ordered[0]

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        while True:
            yield from self.ordered


@dataclass(frozen=True)
class Run:
    """A pack that was trained: the model, what the loop returned, and the rows of each trial by step."""

    folded: Folded
    trained: Trained
    rows: list[dict[int, Row | None]]

    def losses(self, trial: int = 0) -> list[float]:
        """The training loss of each step."""
        return [row["train/loss"] for row in self.rows[trial].values() if row and "train/loss" in row]


def run(
    folded: Folded,
    task: Task,
    domain: Domain,
    settings: Sequence[OptimizerOptions],
    how: TrainingOptions,
    seeds: Sequence[int] | None = None,
    **more: Any,
) -> Run:
    """Train ``folded`` and keep every row; ``more`` are callbacks besides."""
    rows: list[dict[int, Row | None]] = [{} for _ in range(folded.trials)]

    def keep(step: int, new: Rows) -> None:
        for own, row in zip(rows, new, strict=True):
            own[step] = row

    callbacks = Callbacks(on_rows=keep, **more)
    trained = train(folded, task, domain, settings, how, seeds or [0] * folded.trials, callbacks)
    return Run(folded, trained, rows)


def squared_error() -> ToyRegression:
    """A task whose loss is the squared error; its own data are small and rarely used."""
    return toy_regression(regression())


def pairs(inputs: int, outputs: int, rows: int, batches: int, seed: int = 0) -> list[Batch]:
    """Batches of normal inputs and normal targets."""
    x, y = randn(batches, rows, inputs, seed=seed), randn(batches, rows, outputs, seed=seed + 1)
    return [Batch(*pair) for pair in zip(x, y, strict=True)]


class NextTokenAlone(NextToken):
    """Cross-entropy of each window, without a model of its own."""

    def new_model(self, rng: Generator) -> Model:
        raise NotImplementedError


def tokens(batches: int, vocabulary: int = 11, context: int = 10) -> InOrder:
    """Batches of four random windows."""
    drawn = torch.randint(vocabulary, (batches, 4, context + 1), generator=torch.Generator().manual_seed(5))
    return InOrder([Batch(window[:, :-1], window[:, 1:]) for window in drawn], context)


def next_token(batches: int) -> NextTokenAlone:
    """A task whose loss is that of the next token, on the random windows of ``tokens``."""
    return NextTokenAlone(tokens(batches), tokens(batches))
