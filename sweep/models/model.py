"""What every model of ours offers besides computing."""

from collections.abc import Mapping, Sequence

from torch import nn


class Model(nn.Module):
    """A module that names its parts.

    ``presets`` are groups of its linear layers: ``all_linear``, ``attention`` and so on. ``stages`` are its
    submodules in the order of computing (the model itself is ""); the first argument of each is all that later
    ones depend on. ``checkpointing`` has the backward pass compute its blocks again, in a model that ``can_checkpoint``.
    """

    presets: Mapping[str, Sequence[str]]
    stages: Sequence[str]
    can_checkpoint: bool = False
    checkpointing: bool = False
