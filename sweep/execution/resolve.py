"""What a trial means on its task's model: the layers that it adapts, or the reason why it cannot run."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sweep import schema
from sweep.adapters import from_peft, init, targets
from sweep.adapters.fold import check_rows_are_independent, linear_layers
from sweep.models.model import Model
from sweep.schema import ConfigError
from sweep.tasks.data import fingerprint
from sweep.tasks.registry import build
from sweep.trial import Trial


@dataclass(frozen=True)
class Resolved:
    """The names of the layers that a trial adapts, notes for its record, and the modules that it trains in full."""

    targets: tuple[str, ...]
    notes: tuple[str, ...]
    saved: tuple[str, ...] = ()


def resolve(trial: Trial, cache_folder: Path, start: str | None = None) -> Resolved:
    """Match the adapter, and the folder ``start`` that it starts from, against the task's model, before anything trains.

    Raises ConfigError when no layer matches, none can hold the rank, or the model has nothing to checkpoint.
    """
    if trial.training.checkpointing and not meta_model(trial.task, cache_folder).can_checkpoint:
        raise ConfigError([f"training.checkpointing = True: the model of task {trial.task.name} has no blocks to compute again; use it with task=transformer"])  # fmt: skip
    notes = build(trial.task, cache_folder).notes
    if trial.adapter.kind != "lora":
        return Resolved((), notes)
    shapes, modules, presets = _layers(trial.task, cache_folder)
    model = meta_model(trial.task, cache_folder)
    saved = targets.select_saved(trial.adapter, modules)
    chosen = targets.select(trial.adapter, list(shapes), presets)
    if trial.adapter.bias == "all":
        _check_biases(model, set(shapes))
    own_notes = init.check(trial.adapter, {name: shapes[name] for name in chosen})
    if trial.adapter.peft is not None:
        assert start is not None
        from_peft.check_start(Path(start), trial.adapter, model, chosen, saved)
    return Resolved(tuple(chosen), (*notes, *own_notes), tuple(saved))


def trial_of(config: schema.Config) -> Trial:
    """The trial that ``config`` describes, with its data's fingerprint and without files of the user's own.

    Raises ConfigError for data or an adapter that cannot be read.
    """
    config = config.model_copy(update={"adapter": from_peft.resolved(config.adapter)})
    return Trial.of(config, fingerprint(config.task, Path(config.cache)))


def device_of(name: str) -> torch.device:
    """The device that ``device=name`` means; ``auto`` is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(["device = 'cuda': torch finds no CUDA GPU here; use device=cpu or device=auto"])
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@cache
def meta_model(task: schema.Task, cache_folder: Path) -> Model:
    """The model of ``task`` on the meta device: its shapes without its numbers, built once."""
    built = build(task, cache_folder)
    with torch.device("meta"):
        model = built.new_model()
    check_rows_are_independent(model)
    return model


@cache
def _layers(task: schema.Task, cache_folder: Path) -> tuple[dict[str, tuple[int, int]], list[str], targets.Presets]:
    """Of the linear layers the shapes (out, in), the names of all modules with parameters, and the presets."""
    model = meta_model(task, cache_folder)
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in linear_layers(model).items()}
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    return shapes, modules, model.presets


def _check_biases(model: Model, layers: set[str]) -> None:
    """Raise ConfigError where ``bias: all`` would not be all: biases of layer norms are not trained here."""
    names = [name.rpartition(".") for name, _ in model.named_parameters()]
    if others := [layer for layer, _, part in names if part == "bias" and layer not in layers]:
        raise ConfigError([f"adapter.bias = 'all': this model also has biases outside its linear layers, such as that of {others[0]}, which are not trained here; use lora_only"])  # fmt: skip
