"""The pack: trials that train together, and what training them costs."""

import math
from dataclasses import dataclass

from sweep.resolve import ResolvedTrial

TRIAL_S = 0.03
"""What a trial costs besides its training: opening and closing its W&B run, and its record."""


@dataclass(frozen=True)
class Pack:
    """Trials that train together. ``step_s`` is one update of all of them, in seconds; NaN when not measured."""

    trials: tuple[ResolvedTrial, ...]
    step_s: float
    memory_bytes: int

    @property
    def steps(self) -> int:
        """Updates of each trial; the untouched base has none."""
        trial = self.trials[0]
        return 0 if trial.adapter.kind == "none" else trial.training.steps

    @property
    def seconds(self) -> float:
        """Estimated training time."""
        return self.step_s * self.steps if self.steps else 0.0

    @property
    def work(self) -> float:
        """Estimated seconds of everything that is known to take time, to decide about worker processes."""
        training = self.seconds if math.isfinite(self.seconds) else 0.0
        return training + TRIAL_S * len(self.trials)

    def halves(self) -> tuple["Pack", "Pack"]:
        """The same trials in two packs."""
        middle = len(self.trials) // 2
        first, second = self.trials[:middle], self.trials[middle:]
        return tuple(Pack(half, self.step_s / 2, self.memory_bytes // 2) for half in (first, second))  # type: ignore[return-value]
