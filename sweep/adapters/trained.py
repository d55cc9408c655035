"""Metrics of plug-ins: figures of the trained layers of one trial, taken at its end."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.adapters.lora import LoRALinear
from sweep.guard import guarded
from sweep.metrics import OURS, Metric
from sweep.registry import METRICS, Plugin, PluginError


@dataclass(frozen=True)
class TrainedLayer:
    """One adapted layer of one trial after its last step; the tensors are copies, on the CPU.

    Attributes:
        lora_A: A (rank, in).
        lora_B: B (out, rank), trained or not.
        scaling: the factor s of B·A.
        weight: the untouched base's W (out, in).
        change: what the trial adds to W, (out, in): s·BA, less what the initialisation took out of the base; for DoRA
            with its rescaling.

    """

    lora_A: Tensor
    lora_B: Tensor
    scaling: float
    weight: Tensor
    change: Tensor

    def delta(self) -> Tensor:
        """s·B·A, (out, in)."""
        return self.scaling * self.lora_B @ self.lora_A


class TrainedLayers(Mapping[str, TrainedLayer]):
    """The adapted layers of one trial by name; each is copied when it is asked for."""

    def __init__(self, folded: Folded, trial: int):
        self._trial = trial
        self._layers = {name: layer for name, layer in folded.layers.items() if layer.ranks[trial]}

    def __getitem__(self, name: str) -> TrainedLayer:
        layer: LoRALinear = self._layers[name]
        factors = layer.factors(self._trial)
        lora_A, lora_B, weight, change = (
            tensor.detach().float().cpu().clone()
            for tensor in (factors["lora_A"], factors["lora_B"], layer.base.weight, layer.delta(self._trial))
        )
        return TrainedLayer(lora_A, lora_B, float(layer.scaling[self._trial]), weight, change)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclass(frozen=True)
class LayerMetric:
    """A metric of kind ``end``, and the function that measures it on the trained layers of a trial with a LoRA.

    ``tasks`` are the names of the tasks that it fits; None is every task.
    """

    metric: Metric
    measure: Callable[[Mapping[str, TrainedLayer]], float]
    tasks: tuple[str, ...] | None = None


def load_metric(plugin: Plugin) -> LayerMetric:
    """The metric of a plug-in. Raises PluginError where it cannot be imported, or is not what a metric must be."""
    with guarded(plugin, "importing"):
        loaded = METRICS.load(plugin.name)
    if not isinstance(loaded, LayerMetric):
        raise plugin.error(f"is {type(loaded).__name__}, and must be a LayerMetric")
    if loaded.metric.kind != "end":
        raise plugin.error(f"{loaded.metric.name} is of kind {loaded.metric.kind}, and must be of kind end")
    return loaded


@dataclass(frozen=True)
class LayerMetrics:
    """The metrics of plug-ins that fit one task, and those that cannot be used, with the reason."""

    usable: dict[Plugin, LayerMetric]
    faults: dict[Plugin, PluginError]

    @property
    def identities(self) -> dict[str, str]:
        """By name, the plug-ins that would measure a trial now."""
        return {plugin.name: plugin.identity for plugin in (*self.usable, *self.faults)}

    def measure(self, folded: Folded, trial: int) -> tuple[dict[str, float], tuple[str, ...]]:
        """The figures of one trial, and a note for each metric that failed; other trials are not affected."""
        figures: dict[str, float] = {}
        notes = list(dict.fromkeys(map(str, self.faults.values())))
        for plugin, one in self.usable.items():
            try:
                with guarded(plugin, "measuring"):
                    value = float(one.measure(TrainedLayers(folded, trial)))
                if not math.isfinite(value):
                    raise plugin.error(f"gave {value}")
            except PluginError as error:
                notes.append(str(error))
            else:
                figures[one.metric.name] = value
        return figures, tuple(f"left out: {note}" for note in notes)


@cache
def layer_metrics(task: str, own: tuple[str, ...]) -> LayerMetrics:
    """The metrics of plug-ins that fit the task with this name, whose ``own`` metrics have these names."""
    usable: dict[Plugin, LayerMetric] = {}
    faults: dict[Plugin, PluginError] = {}
    givers = dict.fromkeys((*OURS, *own), "lora-sweep or the task")
    for plugin in METRICS.plugins:
        try:
            loaded = load_metric(plugin)
        except PluginError as error:
            faults[plugin] = error
            continue
        if loaded.tasks is not None and task not in loaded.tasks:
            continue
        name = loaded.metric.name
        if name in givers:
            faults[plugin] = plugin.error(f"{name} is given by {givers[name]} too")
        else:
            usable[plugin], givers[name] = loaded, str(plugin)
    return LayerMetrics(usable, faults)
