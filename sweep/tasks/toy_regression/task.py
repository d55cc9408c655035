"""Toy regression: adapt a linear map (or a small MLP) to a planted shift of low rank, compared with an oracle."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sweep.adapters.fold import Folded
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import rank_of
from sweep.metrics import LOSS, ORACLE_MSE, ORACLE_RISK, REGRET, TRAIN_MSE
from sweep.models.mlp import MLP
from sweep.rng import drawing_from, generator
from sweep.tasks.task import Batch, Examples, Task
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.tasks.toy_regression.oracle import best_mse, population_risks


@dataclass(frozen=True)
class ToyRegression(Task):
    """Targets come from the base plus a shift; the base is the source domain's own map, known exactly."""

    metrics = (LOSS, TRAIN_MSE, ORACLE_MSE, REGRET, ORACLE_RISK)

    teacher: MLP
    target: Examples
    risks: tuple[float, ...] = ()
    """The population risk of the best update of rank 0, 1, …, where the shift is known and the map is linear."""

    def new_model(self, rng: Generator) -> MLP:
        """A map of the teacher's shape."""
        with drawing_from(rng):
            return MLP(self.teacher.widths)

    def base(self) -> MLP:
        """A copy of the source domain's map, to which pre-training on unlimited data would converge."""
        return copy.deepcopy(self.teacher)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error over the outputs of each row."""
        return F.mse_loss(outputs, targets, reduction="none").mean(1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The loss alone."""
        return {LOSS.name: self.loss(outputs, targets)}

    @torch.no_grad()
    def closing(self, folded: Folded, adapters: Sequence[AdapterOptions]) -> list[dict[str, float]]:
        """Training error, the oracle's on the same sample, and the regret between them.

        ``eval/regret`` is (trained − oracle) / (base − oracle): 0 is the best that this rank can do, 1 is no
        better than the base. Only for a linear map with its layer adapted; the oracle of a trial whose
        initialisation moved a part of the base works on what remained frozen. ``eval/oracle_risk`` is the
        expected held-out error of the best update of this rank to the base. DoRA has no oracle: it also rescales
        rows, so its updates are not those of a rank.
        """
        if len(self.teacher.linears) > 1:
            return super().closing(folded, adapters)
        inputs, targets = (tensor.to(next(folded.model.parameters()).device) for tensor in self.target.train)
        folded.model.eval()  # no dropout: the error is that of the trained map
        outputs = folded.outputs(inputs, sees=[0] * folded.trials).view(folded.trials, *targets.shape)
        [linear] = self.teacher.linears
        base_mse = best_mse(inputs.cpu(), targets.cpu(), linear.weight, linear.bias, rank=0)
        layer = folded.layers.get("layers.0")

        @cache
        def oracle_of(rank: int, free_bias: bool, moved_by: int | None) -> float:
            frozen = linear.weight
            if layer is not None and moved_by is not None:
                frozen = frozen - layer.moved(moved_by).cpu()
            return best_mse(inputs.cpu(), targets.cpu(), frozen, linear.bias, rank, free_bias)

        metrics = []
        for trial, adapter in enumerate(adapters):
            train_mse = F.mse_loss(outputs[trial], targets).item()
            if adapter.dora:
                metrics.append({TRAIN_MSE.name: train_mse})
                continue
            ranks = {"none": 0, "full": min(linear.weight.shape)}
            rank = ranks[adapter.kind] if adapter.kind in ranks else rank_of(adapter, "layers.0")
            free_bias = adapter.kind == "full" or adapter.bias in ("all", "lora_only")
            is_moved = layer is not None and layer.moves_base[trial]
            oracle = oracle_of(rank, free_bias, trial if is_moved else None)
            regret = (train_mse - oracle) / (base_mse - oracle) if base_mse > oracle else math.nan
            figures = {TRAIN_MSE.name: train_mse, ORACLE_MSE.name: oracle, REGRET.name: regret}
            if self.risks:
                figures[ORACLE_RISK.name] = self.risks[min(rank, len(self.risks) - 1)]
            metrics.append(figures)
        return metrics


def toy_regression(options: ToyRegressionOptions) -> ToyRegression:
    """Draw the data that ``options`` describes."""
    return _tutorial(options) if options.data == "tutorial" else _planted(options)


def _planted(options: ToyRegressionOptions) -> ToyRegression:
    rng = generator(options.data_seed, "regression")
    widths = [options.in_features, *options.hidden, options.out_features]
    source_map, target_map = MLP(widths), MLP(widths)
    for source_layer, target_layer in zip(source_map.linears, target_map.linears, strict=True):
        out_features, in_features = source_layer.weight.shape
        source_layer.weight.data = torch.randn(out_features, in_features, generator=rng) / in_features**0.5
        source_layer.bias.data = torch.randn(out_features, generator=rng) * 0.1
        left = torch.randn(out_features, options.shift_rank, generator=rng)
        right = torch.randn(options.shift_rank, in_features, generator=rng)
        shift = left @ right * options.shift_scale / (options.shift_rank * in_features) ** 0.5
        target_layer.weight.data = source_layer.weight.data + shift
        target_layer.bias.data = source_layer.bias.data.clone()
    root = torch.eye(options.in_features)
    if options.inputs == "anisotropic":
        rotation = torch.linalg.qr(torch.randn(options.in_features, options.in_features, generator=rng)).Q
        spread = torch.arange(1, options.in_features + 1) ** -0.5
        root = rotation * (spread / spread.square().mean().sqrt())

    @torch.no_grad()
    def draw(mapping: nn.Module, rows: int, rng: Generator) -> Batch:
        inputs = torch.randn(rows, options.in_features, generator=rng) @ root.T
        clean = mapping(inputs)
        return Batch(inputs, clean + options.noise * torch.randn(clean.shape, generator=rng))

    validation_rng = _validation_rng(options)
    source, target = (
        Examples(
            draw(mapping, options.samples, rng),
            draw(mapping, options.held_out, rng),
            validation=draw(mapping, options.validation, validation_rng) if options.validation else None,
        )
        for mapping in (source_map, target_map)
    )
    risks = () if options.hidden else population_risks(shift, root, options.noise)
    return ToyRegression(source, target, source_map.requires_grad_(False), risks)


def _tutorial(options: ToyRegressionOptions) -> ToyRegression:
    """The numbers that the tutorial draws under ``torch.manual_seed(data_seed)``, in its order.

    The source domain is the base's own outputs, so that drifting away from it is visible.
    """
    rng = torch.Generator().manual_seed(options.data_seed)
    train = Batch(torch.randn(1000, 64, generator=rng), torch.randn(1000, 10, generator=rng))
    base = MLP([64, 10])
    [linear] = base.linears
    nn.init.kaiming_uniform_(linear.weight, a=5**0.5, generator=rng)
    nn.init.uniform_(linear.bias, -1 / 8, 1 / 8, generator=rng)
    base.requires_grad_(False)
    held_out_rng = generator(options.data_seed, "regression", "tutorial")
    inputs = torch.randn(options.held_out, 64, generator=held_out_rng)
    held_out = Batch(inputs, torch.randn(options.held_out, 10, generator=held_out_rng))
    source = Examples(Batch(train.inputs, base(train.inputs)), Batch(inputs, base(inputs)))
    target = Examples(train, held_out)
    if options.validation:
        validation_rng = _validation_rng(options)
        own = torch.randn(options.validation, 64, generator=validation_rng)
        source = replace(source, validation=Batch(own, base(own)))
        target = replace(target, validation=Batch(own, torch.randn(options.validation, 10, generator=validation_rng)))
    return ToyRegression(source, target, base)


def _validation_rng(options: ToyRegressionOptions) -> Generator:
    """What validation examples are drawn from, so that they change no other draw."""
    return generator(options.data_seed, "regression", "validation")
