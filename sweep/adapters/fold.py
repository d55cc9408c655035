"""Fold several trials into one model: the base shared and frozen, a row of trained numbers for each trial."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sweep.adapters.dora import DoRALinear
from sweep.adapters.inits import BaseWeight, init_of
from sweep.adapters.lora import LoRALinear, TrialFactors
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import rank_of, scale_of
from sweep.adapters.shared_prefix import SharedPrefix
from sweep.models.model import Model, check_rows_are_independent
from sweep.rng import generator


@dataclass(frozen=True)
class Folded:
    """A model that computes every trial of a pack at once, on rows that are trial-major.

    Attributes:
        base: the shared model, which is never written.
        model: the same with the trials' adapters.
        trials: how many there are.
        whole: the tensors that a trial trains in full, by name; such a trial is always alone.
        layers: the adapted layers by name.
        saved: a single trial's own modules, by name, that ``adapter.save`` trains in full.
        shared_prefix: where the rows of distinct inputs become those of the trials.

    """

    base: Model
    model: Model
    trials: int
    whole: dict[str, nn.Parameter] = field(default_factory=dict)
    layers: dict[str, LoRALinear] = field(default_factory=dict)
    saved: dict[str, nn.Module] = field(default_factory=dict)
    shared_prefix: SharedPrefix = field(default_factory=SharedPrefix)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained tensors by name: those of layers have the trials as their first axis, the others are ``whole``."""
        adapted = {
            f"{name}.{part}": parameter
            for name, layer in self.layers.items()
            for part, parameter in layer.trained_parameters().items()
        }
        return self.whole | adapted

    def outputs(self, inputs: Tensor, sees: Sequence[int], **settings: Any) -> Tensor:
        """Compute the outputs of every trial.

        Args:
            inputs: (D·N, …), the rows of D distinct inputs.
            sees: for each trial, which of the distinct inputs it sees.
            settings: further arguments of the model.

        Returns:
            (T·N, …), trial-major.

        """
        self.shared_prefix.assign(sees, inputs.device)
        outputs = self.model(inputs, **settings)
        return outputs if self.layers else self.shared_prefix.expand(outputs)

    @property
    def base_params(self) -> int:
        """How many numbers the base has."""
        return sum(parameter.numel() for parameter in self.base.parameters())

    def added_params(self, trial: int) -> int:
        """How many numbers a trial has besides the base's; trained biases and weights count as the base's."""
        return sum(tensor.numel() for layer in self.layers.values() for tensor in layer.factors(trial).values())

    def starts_at_base(self) -> bool:
        """Whether every trial, as it stands, computes bit for bit what the base computes."""
        base = dict(self.base.named_parameters(remove_duplicate=False))
        has_its_modules = all(
            torch.equal(parameter, base[f"{name}.{part}"])
            for name, own in self.saved.items()
            for part, parameter in own.named_parameters()
        )
        return has_its_modules and all(layer.starts_at_base() for layer in self.layers.values())

    def enable(self, enabled: bool) -> None:
        """Turn every adapter on or off; off, the model computes exactly what the base computes."""
        for layer in self.layers.values():
            layer.enabled = enabled
        for name, own in self.saved.items():
            self.model.set_submodule(name, own if enabled else self.base.get_submodule(name))

    def merged(self, trial: int) -> Model:
        """A plain model with the trial's update added to its weights: no adapter, no extra cost."""
        if self.parameters and not self.layers:
            return copy.deepcopy(self.model)  # fully fine-tuned: there is nothing to merge
        merged = copy.deepcopy(self.base)
        for name, own in self.saved.items():
            merged.set_submodule(name, copy.deepcopy(own).requires_grad_(False))
        linears = linear_layers(merged)
        for name, layer in self.layers.items():
            plain = linears[name]
            weight = plain.weight + layer.delta(trial)
            plain.weight = nn.Parameter(weight, requires_grad=False)  # a new one: an embedding may share the old
            if (bias := layer.own_bias(trial)) is not None:
                plain.bias.data.copy_(bias)
        return merged

    def unmerged(self, merged: Model, trial: int) -> Model:
        """A copy of ``merged`` with the trial's update taken out again: the base, within rounding."""
        assert self.layers, "only an adapter can be taken out again"
        unmerged = copy.deepcopy(merged)
        for name in self.saved:
            unmerged.set_submodule(name, copy.deepcopy(self.base.get_submodule(name)))
        linears = linear_layers(unmerged)
        for name, layer in self.layers.items():
            plain = linears[name]
            plain.weight.data -= layer.delta(trial)
            if layer.base.bias is not None:
                plain.bias.data.copy_(layer.base.bias)
        return unmerged


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer of ``model`` by its dotted name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def fold(
    base: Model,
    adapters: Sequence[AdapterOptions],
    targets: Sequence[Sequence[str]],
    seeds: Sequence[int],
    padded_rank: int,
    weights: Mapping[str, BaseWeight] | None = None,
    saved: Sequence[str] = (),
) -> Folded:
    """Fold the trials of a pack, whose adapters are of one kind, onto ``base``; the arguments are ``fold_lora``'s."""
    [kind] = {adapter.kind for adapter in adapters}
    match kind:
        case "full":
            assert len(adapters) == 1, "full fine-tuning runs alone"
            return fold_full(base)
        case "none":
            return fold_none(base, len(adapters))
        case "lora":
            return fold_lora(base, adapters, targets, seeds, padded_rank, weights, saved)


def fold_full(base: Model) -> Folded:
    """One trial that trains every weight of a copy of ``base``. Raises ConfigError as ``fold_lora``."""
    check_rows_are_independent(base)
    model = copy.deepcopy(base).requires_grad_(True)
    return Folded(base, model, 1, whole=dict(model.named_parameters()))


def fold_none(base: Model, trials: int) -> Folded:
    """Trials that train nothing and compute what ``base`` computes. Raises ConfigError as ``fold_lora``."""
    check_rows_are_independent(base)
    return Folded(base, _copy_sharing_tensors(base), trials)


def fold_lora(
    base: Model,
    adapters: Sequence[AdapterOptions],
    targets: Sequence[Sequence[str]],
    seeds: Sequence[int],
    padded_rank: int,
    weights: Mapping[str, BaseWeight] | None = None,
    saved: Sequence[str] = (),
) -> Folded:
    """Attach the LoRAs of a pack's trials to ``base``, whose own tensors are shared and never written.

    Args:
        base: the pre-trained model.
        adapters: one for each trial, all of them with DoRA or all without.
        targets: the names of the layers that each trial adapts.
        seeds: one for each trial, for the initialisation and dropout.
        padded_rank: the rank to which all factors are padded.
        weights: the base's weights with their decompositions, when they are kept from an earlier pack.
        saved: the names of the modules that a single trial trains in full, in a copy of its own.

    Raises:
        ConfigError: the model mixes rows (batch normalisation) or has dropout of its own, so that trials
            could not be told apart.

    """
    check_rows_are_independent(base)
    assert len({adapter.dora for adapter in adapters}) == 1, "a pack is DoRA or is not"
    assert len(adapters) == 1 or not saved, "a trial that trains whole modules runs alone"
    model = _copy_sharing_tensors(base)
    own_modules = {name: copy.deepcopy(base.get_submodule(name)).requires_grad_(True) for name in saved}
    for name, module in own_modules.items():
        model.set_submodule(name, module)
    layers: dict[str, LoRALinear] = {}
    for name, linear in linear_layers(model).items():
        if is_within(saved, name):
            continue
        weight = weights[name] if weights else BaseWeight(linear.weight)
        trials = [
            _trial_factors(name, linear, weight, adapter, name in own_targets, seed)
            for adapter, own_targets, seed in zip(adapters, targets, seeds, strict=True)
        ]
        is_targeted = any(trial.rank for trial in trials)
        if is_targeted or any(trial.trains_bias for trial in trials):
            layer_type = DoRALinear if adapters[0].dora and is_targeted else LoRALinear
            layers[name] = layer_type(linear, trials, padded_rank)
            model.set_submodule(name, layers[name])
    whole = {
        f"{name}.{part}": parameter
        for name, module in own_modules.items()
        for part, parameter in module.named_parameters()
    }
    folded = Folded(base, model, len(adapters), whole, layers, own_modules)
    if not saved:  # a single trial shares nothing, and its own modules may come before the first adapted layer
        _end_shared_prefix(folded)
    return folded


def _copy_sharing_tensors(base: Model) -> Model:
    """A copy of the modules of ``base`` that shares its tensors, frozen."""
    shared = [*base.parameters(), *base.buffers()]
    return copy.deepcopy(base, memo={id(tensor): tensor for tensor in shared}).requires_grad_(False)


def _trial_factors(
    name: str, linear: nn.Linear, weight: BaseWeight, adapter: AdapterOptions, is_targeted: bool, seed: int
) -> TrialFactors:
    """What one trial starts from in the layer ``name``."""
    rank, scale, init = rank_of(adapter, name), scale_of(adapter, name), init_of(adapter)
    if is_targeted:
        lora_A, lora_B = init.draw(weight, rank, scale, generator(seed, "init", name))
    else:
        lora_A, lora_B = torch.empty(0, linear.in_features), torch.empty(linear.out_features, 0)
    return TrialFactors(
        lora_A,
        lora_B,
        scale,
        adapter.dropout or 0.0,
        generator(seed, "dropout", name),
        init.trains_B,
        init.moves_base,
        trains_bias(adapter, linear, is_targeted),
    )


def _end_shared_prefix(folded: Folded) -> None:
    """Expand the rows of distinct inputs at the first stage that has an adapted layer."""
    first = next(stage for stage in folded.base.stages if _has(stage, folded.layers))
    stage = folded.model.get_submodule(first)
    if isinstance(stage, LoRALinear):
        stage.shared_prefix = folded.shared_prefix
    else:
        folded.shared_prefix.expand_before(stage)


def _has(module: str, layers: Iterable[str]) -> bool:
    return module == "" or any(is_within([module], name) for name in layers)


def is_within(modules: Iterable[str], layer: str) -> bool:
    """Whether ``layer`` is one of ``modules`` or inside one, by their dotted names."""
    return any(layer == module or layer.startswith(f"{module}.") for module in modules)


def trains_bias(adapter: AdapterOptions, linear: nn.Linear, targeted: bool) -> bool:
    """Whether ``adapter`` trains the bias of ``linear``, which it does or does not target."""
    if linear.bias is None:
        return False
    return adapter.bias == "all" or (adapter.bias == "lora_only" and targeted)


def trainable(folded: Folded, received: Mapping[str, bool]) -> list[int]:
    """Trained numbers of each trial, counted over the tensors that actually received a gradient."""
    whole = sum(parameter.numel() for name, parameter in folded.whole.items() if received[name])
    return [
        whole
        + sum(
            size
            for name, layer in folded.layers.items()
            for part, size in layer.trained_numbers(trial).items()
            if received[f"{name}.{part}"]
        )
        for trial in range(folded.trials)
    ]


def export(folded: Folded, trial: int) -> dict[str, Tensor]:
    """Copies of the tensors of one trial, under the layer's name plus ``.lora_A`` and so on, as ``views``."""
    return {name: tensor.clone().contiguous() for name, tensor in views(folded, trial).items()}


def views(folded: Folded, trial: int) -> dict[str, Tensor]:
    """The tensors of one trial where they are, without padding.

    Those are what it trains and, where its initialisation freezes it, B.
    """
    adapted = {
        f"{name}.{part}": tensor
        for name, layer in folded.layers.items()
        for part, tensor in layer.tensors(trial).items()
    }
    return {name: tensor.detach() for name, tensor in (folded.whole | adapted).items()}
