"""What a trial means on its task's model: the layers that it adapts, or the reason why it cannot run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from sweep.adapters import targets
from sweep.adapters.fold import linear_layers
from sweep.adapters.inits.check import check_ranks
from sweep.adapters.peft import import_
from sweep.adapters.rank import bucket, widest
from sweep.adapters.trained import LayerMetrics, layer_metrics
from sweep.config import Config
from sweep.errors import ConfigError
from sweep.guard import guarded
from sweep.hardware import device_of
from sweep.metrics import OF_EVERY_TRIAL, Metric, with_domains
from sweep.models.model import Model, check_rows_are_independent
from sweep.registry import TASKS
from sweep.tasks.check import check_task
from sweep.tasks.options import TaskOptions
from sweep.training.options import TrainingOptions
from sweep.trial import Trial


@dataclass(frozen=True)
class ResolvedTrial(Trial):
    """A trial that can run, checked against its model and its data.

    ``targets`` are the names of the layers that it adapts, ``saved`` those of the modules that it trains in full;
    ``padded_rank`` is the rank that its factors are padded to (0 without a LoRA). ``notes`` are for its record, and
    ``config`` is what it came from. ``alone`` is for its record, too: its speed alone, once that has been measured.
    """

    config: Config
    targets: tuple[str, ...]
    saved: tuple[str, ...]
    padded_rank: int
    notes: tuple[str, ...]
    alone: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def cache_folder(self) -> Path:
        """Where pre-trained bases and fetched data are kept."""
        return Path(self.config.cache)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric that its history or its record can hold."""
        measured = (one.metric for one in self.layer_metrics.usable.values())
        return (*with_domains(self.task.build(self.cache_folder).metrics), *OF_EVERY_TRIAL, *measured)

    @property
    def layer_metrics(self) -> LayerMetrics:
        """The metrics of plug-ins that are measured of its trained layers; none without a LoRA."""
        if self.adapter.kind != "lora":
            return LayerMetrics({}, {})
        own = self.task.build(self.cache_folder).metrics
        return layer_metrics(self.task.name, tuple(metric.name for metric in own))

    @property
    def start(self) -> Path | None:
        """The folder of the PEFT adapter whose weights the trial starts from."""
        folder = self.config.adapter.peft
        return Path(folder) if folder and self.adapter.peft else None


def resolve(config: Config) -> ResolvedTrial:
    """Match a validated configuration against its task's data and model, before anything trains.

    Raises ConfigError for data or an adapter that cannot be read, and when no layer matches, none can hold the rank,
    or the model has nothing to checkpoint.
    """
    device_of(config.device)
    adapter = import_.resolved(config.adapter)
    data = _fingerprint(config.task, Path(config.cache))
    own = {"adapter": adapter, "training": _with_steps(config)}
    trial = Trial.of(config.model_copy(update=own), data)
    chosen, saved, notes = _match(trial, Path(config.cache), config.adapter.peft)
    padded_rank = bucket(widest(adapter)) if adapter.kind == "lora" else 0
    identity = {field.name: getattr(trial, field.name) for field in fields(trial)}
    return ResolvedTrial(**identity, config=config, targets=chosen, saved=saved, padded_rank=padded_rank, notes=notes)


def _with_steps(config: Config) -> TrainingOptions:
    """The training with as many steps as its epochs need; the last step may go on into another epoch."""
    training = config.training
    if training.epochs is None:
        return training
    rows = config.task.build(Path(config.cache)).target.epoch_rows
    steps = math.ceil(training.epochs * rows / (training.batch_size * training.accumulation))
    return training.model_copy(update={"steps": steps})


def _match(
    trial: Trial, cache_folder: Path, start: str | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The targets, the modules trained in full and the notes of a trial that starts from the folder ``start``."""
    if trial.training.checkpointing and not meta_model(trial.task, cache_folder).can_checkpoint:
        raise ConfigError(
            [
                f"training.checkpointing = True: the model of task {trial.task.name} has no blocks to "
                f"compute again; use it with task=transformer"
            ]
        )
    notes = trial.task.build(cache_folder).notes
    if trial.adapter.kind != "lora":
        return (), (), notes
    shapes, modules, presets = _layers(trial.task, cache_folder)
    model = meta_model(trial.task, cache_folder)
    saved = targets.select_saved(trial.adapter, modules)
    chosen = targets.select(trial.adapter, list(shapes), presets)
    if trial.adapter.bias == "all":
        _check_biases(model, set(shapes))
    own_notes = check_ranks(trial.adapter, {name: shapes[name] for name in chosen})
    if trial.adapter.peft is not None:
        assert start is not None
        import_.check_start(Path(start), trial.adapter, model, chosen, saved)
    return tuple(chosen), tuple(saved), (*notes, *own_notes)


def _fingerprint(options: TaskOptions, cache_folder: Path) -> str:
    """The fingerprint of the task's data; a plug-in's task is tried before."""
    plugin = TASKS.plugin(options.name)
    if plugin is None:
        return options.fingerprint(cache_folder)
    with guarded(plugin, "taking the fingerprint of its data"):
        fingerprint = options.fingerprint(cache_folder)
    if not isinstance(fingerprint, str):
        raise plugin.error(f"its fingerprint is {type(fingerprint).__name__}, and must be text")
    _try_once(plugin, options, cache_folder)
    return fingerprint


_try_once = cache(check_task)


@cache
def meta_model(options: TaskOptions, cache_folder: Path) -> Model:
    """The model of a task on the meta device: its shapes without its numbers, built once."""
    with guarded(TASKS.plugin(options.name), "making its model on the meta device"):
        model = options.build(cache_folder).outline()
    check_rows_are_independent(model)
    return model


@cache
def _layers(options: TaskOptions, cache_folder: Path) -> tuple[dict[str, tuple[int, int]], list[str], targets.Presets]:
    """The shapes (out, in) of the linear layers, the names of all modules with parameters, and the presets."""
    model = meta_model(options, cache_folder)
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in linear_layers(model).items()}
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    return shapes, modules, model.presets


def _check_biases(model: Model, layers: set[str]) -> None:
    """Raise ConfigError where ``bias: all`` would not be all: biases of layer norms are not trained here."""
    names = [name.rpartition(".") for name, _ in model.named_parameters()]
    if others := [layer for layer, _, part in names if part == "bias" and layer not in layers]:
        raise ConfigError(
            [
                f"adapter.bias = 'all': this model also has biases outside its linear layers, such as "
                f"that of {others[0]}, which are not trained here; use lora_only"
            ]
        )
