"""The initialisation that an adapter names."""

import torch
from torch import Generator, Tensor

from sweep.adapters.inits.init import BaseWeight, Init
from sweep.adapters.inits.plugin import plugin_init
from sweep.adapters.options import AdapterOptions
from sweep.registry import INITS


def _zeros(base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """A = 0, B = 0, to be overwritten."""
    return torch.zeros(rank, base.in_features), torch.zeros(base.out_features, rank)


FROM_FILE = Init(_zeros)
"""The start of a trial whose factors are then read from a PEFT adapter."""


def init_of(adapter: AdapterOptions) -> Init:
    """The initialisation that ``adapter`` names; without a name, its factors come from a file.

    Raises PluginError where it is a plug-in's that cannot be used.
    """
    if adapter.init is None:
        return FROM_FILE
    if plugin := INITS.plugin(adapter.init):
        return plugin_init(plugin)
    init: Init = INITS.load(adapter.init)
    return init
