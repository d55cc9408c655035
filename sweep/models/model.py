"""What every model of ours offers besides computing."""

from collections.abc import Mapping, Sequence

from torch import nn


class Model(nn.Module):
    """A module that names groups of its linear layers: ``all_linear``, ``attention`` and so on."""

    presets: Mapping[str, Sequence[str]]
