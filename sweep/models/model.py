"""What every model of ours offers besides computing."""

from collections.abc import Mapping, Sequence

from torch import nn

from sweep.errors import ConfigError


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


def check_rows_are_independent(model: nn.Module) -> None:
    """Raise ConfigError for layers through which the rows of a batch would change each other, or at random."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError([f"layer {name} is a batch normalisation: it mixes the rows of different trials"])
        if isinstance(module, nn.Dropout) and module.p > 0:
            raise ConfigError(
                [f"layer {name} drops out inside the base; set its p to 0, LoRA's own is adapter.dropout"]
            )
