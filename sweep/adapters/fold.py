"""Fold several trials into one model: the base shared and frozen, a row of trained numbers for each trial."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor, nn

from sweep.adapters.dora import DoRALinear
from sweep.adapters.init import FREEZE_B, INITS, BaseWeight
from sweep.adapters.lora import LoRALinear
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import bucket, rank_of, scale_of, widest
from sweep.adapters.spread import Spread
from sweep.errors import ConfigError
from sweep.models.model import Model
from sweep.rng import generator


@dataclass(frozen=True)
class Folded:
    """A model that computes every trial of a pack at once, on rows that are trial-major.

    ``parameters`` are the trained tensors, each with the trials as its first axis (a fully fine-tuned model
    is always alone, so its tensors are their own single row); ``real`` says for each of them how many of its
    numbers are real, not padding, in each trial.
    """

    base: Model
    model: Model
    trials: int
    parameters: dict[str, nn.Parameter]
    real: dict[str, tuple[int, ...]]
    spread: Spread
    layers: dict[str, LoRALinear] = field(default_factory=dict)
    saved: dict[str, nn.Module] = field(default_factory=dict)

    def outputs(self, inputs: Tensor, sees: Sequence[int]) -> Tensor:
        """Compute the outputs of every trial.

        Args:
            inputs: (D·N, …), the rows of D distinct inputs.
            sees: for each trial, which of the distinct inputs it sees.

        Returns:
            (T·N, …), trial-major.

        """
        self.spread.among(sees, inputs.device)
        outputs = self.model(inputs)
        return outputs if self.layers else self.spread.rows(outputs)

    @property
    def base_params(self) -> int:
        """How many numbers the base has."""
        return sum(parameter.numel() for parameter in self.base.parameters())

    def added_params(self, trial: int) -> int:
        """How many numbers a trial has besides the base's; a trained bias or weight is the base's own number."""
        own = export(self, trial) if self.layers else {}
        return sum(tensor.numel() for name, tensor in own.items() if name.rpartition(".")[2].startswith("lora_"))

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
            plain.weight = nn.Parameter(weight, requires_grad=False)  # a new one, for an embedding may share it
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
    weights: Mapping[str, BaseWeight] | None = None,
    saved: Sequence[str] = (),
) -> Folded:
    """Attach the adapters of a pack's trials to ``base``, whose own tensors are shared and never written.

    Args:
        base: the pre-trained model.
        adapters: one for each trial, all of one kind, with DoRA or without; of ``kind: full`` exactly one.
        targets: the names of the layers that each trial adapts.
        seeds: one for each trial, for the initialisation and dropout.
        weights: the base's weights with their decompositions, when they are kept from an earlier pack.
        saved: the names of the modules that a single trial trains in full, in a copy of its own.

    Raises:
        ConfigError: the model mixes rows (batch normalisation) or has dropout of its own, so that trials
            could not be told apart.

    """
    check_rows_are_independent(base)
    kinds = {adapter.kind for adapter in adapters}
    assert len(kinds) == 1, "a pack has adapters of one kind"
    assert len({adapter.dora for adapter in adapters}) == 1, "a pack is DoRA or is not"
    if kinds == {"full"}:
        assert len(adapters) == 1, "full fine-tuning runs alone"
        model = copy.deepcopy(base).requires_grad_(True)
        parameters = dict(model.named_parameters())
        real: dict[str, tuple[int, ...]] = {name: (parameter.numel(),) for name, parameter in parameters.items()}
        return Folded(base, model, 1, parameters, real, Spread())
    shared = [*base.parameters(), *base.buffers()]
    model = copy.deepcopy(base, memo={id(tensor): tensor for tensor in shared}).requires_grad_(False)
    if kinds == {"none"}:
        return Folded(base, model, len(adapters), {}, {}, Spread())
    layers: dict[str, LoRALinear] = {}
    parameters, real = {}, {}
    assert len(adapters) == 1 or not saved, "a trial that trains whole modules runs alone"
    own_modules = {name: copy.deepcopy(base.get_submodule(name)).requires_grad_(True) for name in saved}
    for name, module in own_modules.items():
        model.set_submodule(name, module)
        parameters |= {f"{name}.{part}": parameter for part, parameter in module.named_parameters()}
    real = {name: (parameter.numel(),) for name, parameter in parameters.items()}
    for name, linear in linear_layers(model).items():
        trial_targets = [name in names for names in targets]
        biased = [trains_bias(adapter, linear, hit) for adapter, hit in zip(adapters, trial_targets, strict=True)]
        if is_within(saved, name) or (not any(trial_targets) and not any(biased)):
            continue
        weight = weights[name] if weights else BaseWeight(linear.weight)
        layer = _adapt(name, linear, weight, adapters, trial_targets, biased, seeds)
        model.set_submodule(name, layer)
        layers[name] = layer
        ranks = [rank_of(adapter, name) if hit else 0 for hit, adapter in zip(trial_targets, adapters, strict=True)]
        sizes = {
            "lora_A": [rank * linear.in_features for rank in ranks],
            "lora_B": [
                rank * linear.out_features * (adapter.init not in FREEZE_B)
                for rank, adapter in zip(ranks, adapters, strict=True)
            ],
            "lora_magnitude_vector": [hit * linear.out_features for hit in trial_targets],
            "bias": [trained * linear.out_features for trained in biased],
        }
        for part, size in sizes.items():
            parameter = getattr(layer, part, None)
            if parameter is not None and any(size):
                parameters[f"{name}.{part}"], real[f"{name}.{part}"] = parameter, tuple(size)
            elif parameter is not None:
                parameter.requires_grad_(False)
    spread = Spread()
    if saved:  # of one trial there is nothing to spread, and its modules may come before the first layer
        return Folded(base, model, 1, parameters, real, spread, layers, own_modules)
    parting = model.get_submodule(next(stage for stage in base.stages if _has(stage, layers)))
    if isinstance(parting, LoRALinear):
        parting.spread = spread
    else:
        spread.before(parting)
    return Folded(base, model, len(adapters), parameters, real, spread, layers)


def _adapt(
    name: str,
    linear: nn.Linear,
    weight: BaseWeight,
    adapters: Sequence[AdapterOptions],
    targeted: Sequence[bool],
    biased: Sequence[bool],
    seeds: Sequence[int],
) -> LoRALinear:
    trials, device = len(adapters), linear.weight.device
    padded = bucket(max(widest(adapter) for adapter in adapters))
    lora_A = torch.zeros(trials, padded, linear.in_features)
    lora_B = torch.zeros(trials, linear.out_features, padded)
    moved_A, moved_B = torch.zeros_like(lora_A), torch.zeros_like(lora_B)
    frozen_B = torch.zeros_like(lora_B)
    moved = frozen = False
    for trial, adapter in enumerate(adapters):
        if targeted[trial] and adapter.init is not None:  # else its numbers come from a file
            rank, scale = rank_of(adapter, name), scale_of(adapter, name)
            factors = INITS[adapter.init](weight, rank, scale, generator(seeds[trial], "init", name))
            lora_A[trial, :rank], lora_B[trial, :, :rank] = factors.lora_A, factors.lora_B
            if factors.from_base:
                moved_A[trial], moved_B[trial], moved = lora_A[trial], lora_B[trial], True
            if adapter.init in FREEZE_B:
                frozen_B[trial], frozen = lora_B[trial], True
                lora_B[trial] = 0
    bias = linear.bias.detach().repeat(trials, 1) if any(biased) else None
    dropout_rng: list[Generator] = [generator(seed, "dropout", name) for seed in seeds]
    is_dora = adapters[0].dora and any(targeted)
    layer_type = partial(DoRALinear, targeted=torch.tensor(targeted, device=device)) if is_dora else LoRALinear
    return layer_type(
        linear,
        nn.Parameter(lora_A.to(device)),
        nn.Parameter(lora_B.to(device)),
        scaling=torch.tensor([scale_of(adapter, name) for adapter in adapters]).to(device),
        dropout=[adapter.dropout or 0.0 for adapter in adapters],
        dropout_rng=dropout_rng,
        frozen_B=frozen_B.to(device) if frozen else None,
        moved=(moved_A.to(device), moved_B.to(device)) if moved else None,
        bias=None if bias is None else nn.Parameter(bias),
        trains_bias=None if bias is None else torch.tensor(biased, device=device),
    )


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


def check_rows_are_independent(model: nn.Module) -> None:
    """Raise ConfigError for layers through which the rows of a batch would change each other, or at random."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError([f"layer {name} is a batch normalisation: it mixes the rows of different trials"])
        if isinstance(module, nn.Dropout) and module.p > 0:
            raise ConfigError(
                [f"layer {name} drops out inside the base; set its p to 0, LoRA's own is adapter.dropout"]
            )


def trainable(folded: Folded, received: Mapping[str, bool]) -> list[int]:
    """Trained numbers of each trial, counted over the tensors that really received a gradient."""
    return [
        sum(sizes[trial] for name, sizes in folded.real.items() if received[name]) for trial in range(folded.trials)
    ]


def export(folded: Folded, trial: int) -> dict[str, Tensor]:
    """Copies of the tensors of one trial, under the layer's name plus ``.lora_A`` and so on, as ``views``."""
    return {name: tensor.clone().contiguous() for name, tensor in views(folded, trial).items()}


def views(folded: Folded, trial: int) -> dict[str, Tensor]:
    """The tensors of one trial where they are, without padding.

    Those are what it trained and, where an initialisation freezes it, B.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in folded.parameters.items():
        layer_name, _, part = name.rpartition(".")
        layer = folded.layers.get(layer_name)
        if layer is None:
            tensors[name] = parameter
        elif size := folded.real[name][trial]:
            if part == "lora_A":
                rank = size // layer.base.in_features
                lora_B = layer.lora_B if layer.frozen_B is None or not layer.is_frozen[trial] else layer.frozen_B
                tensors |= {name: parameter[trial, :rank], f"{layer_name}.lora_B": lora_B[trial, :, :rank]}
            elif part != "lora_B":
                tensors[name] = parameter[trial]
    return {name: tensor.detach() for name, tensor in tensors.items()}
