"""What every model of ours offers besides computing."""

from collections.abc import Mapping, Sequence

from torch import nn


class Model(nn.Module):
    """A module that names its parts.

    ``presets`` are groups of its linear layers: ``all_linear``, ``attention`` and so on. ``stages`` are its
    submodules in the order of computing; the first argument of each is all that later ones depend on.
    """

    presets: Mapping[str, Sequence[str]]
    stages: Sequence[str]
