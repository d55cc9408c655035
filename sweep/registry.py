"""The allowed names of what can be chosen, without importing what they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Registry:
    """Names of one kind, and where each leads: ``module:object``."""

    kind: str
    places: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed names, in the order in which they are listed to a user."""
        return tuple(self.places)

    def load(self, name: str) -> Any:
        """What ``name`` names; its module is imported now."""
        return load(self.places[name])


def load(place: str) -> Any:
    """The object at ``place``, which is ``module:object``; its module is imported now."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


INITS = Registry(
    "init",
    {
        "kaiming": "sweep.adapters.inits.random:kaiming",
        "gaussian": "sweep.adapters.inits.random:gaussian",
        "normal": "sweep.adapters.inits.random:normal",
        "both_random": "sweep.adapters.inits.random:both_random",
        "init_b": "sweep.adapters.inits.random:init_b",
        "orthogonal": "sweep.adapters.inits.random:orthogonal",
        "pissa": "sweep.adapters.inits.from_weights:pissa",
        "milora": "sweep.adapters.inits.from_weights:milora",
        "olora": "sweep.adapters.inits.from_weights:olora",
        "mica": "sweep.adapters.inits.from_weights:mica",
        "eva": "sweep.adapters.inits.from_data:eva",
        "lora_ga": "sweep.adapters.inits.from_data:lora_ga",
    },
)
TASKS = Registry(
    "task",
    {
        "toy_regression": "sweep.tasks.toy_regression.options:ToyRegressionOptions",
        "mnist": "sweep.tasks.mnist.options:MnistOptions",
        "transformer": "sweep.tasks.transformer.options:TransformerOptions",
        "causal_lm": "sweep.tasks.causal_lm.options:CausalLMOptions",
    },
)
