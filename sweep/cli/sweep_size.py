"""How many trials a grid asks for, counted before Hydra lists them all."""

import math

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sweep.errors import ConfigError
from sweep.text import printable

MOST_TRIALS = 100_000
"""Most trials of one launch. Split larger grids by a factor (docs/scale.md)."""
UNCOUNTED = 10**15
"""Counts stop here."""


def check_sweep_size(config: DictConfig, parser: OverridesParser) -> None:
    """Raise ConfigError where Hydra's grid of a composed launch has more than ``MOST_TRIALS`` trials.

    What cannot be parsed is left for Hydra to name.
    """
    if config.hydra.runtime.choices.get("hydra/sweeper") != "basic":
        return
    params = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create(), resolve=False)
    asked = [f"{key}={value}" for key, value in dict(params).items()]  # type: ignore[arg-type]
    try:
        overrides = parser.parse_overrides([*asked, *config.hydra.overrides.task])
        sizes = {override.get_key_element(): _levels(override) for override in overrides}
    except HydraException:
        return
    key, trials = max(sizes, key=lambda name: sizes[name], default=""), math.prod(sizes.values())
    if trials > MOST_TRIALS:
        raise ConfigError(
            [
                f"{printable(key)}: has {_count(sizes[key])} values, and the grid {_count(trials)} trials; at most "
                f"{MOST_TRIALS:,} are launched at once, so sweep over fewer values"
            ]
        )
    if empty := [name for name, size in sizes.items() if not size]:
        raise ConfigError([f"{printable(empty[0])}: has no values to sweep over"])


def _levels(override: Override) -> int:
    """How many values ``override`` has, at most ``UNCOUNTED``; an interval has one. Raises HydraException."""
    value = override.value()
    if not isinstance(value, RangeSweep):
        return sum(1 for _ in override.sweep_iterator()) if override.is_discrete_sweep() else 1
    start, stop, step = value.start or 0, value.stop or 0, value.step  # not listed: that can take all memory
    if not step or any(isinstance(end, float) and not math.isfinite(end) for end in (start, stop, step)):
        return UNCOUNTED
    return int(min(max(0, -((start - stop) // step)), UNCOUNTED))


def _count(number: int) -> str:
    return f"{number:,}" if number < UNCOUNTED else f"{UNCOUNTED:,} or more"
