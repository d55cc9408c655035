"""The settings of a launch, declared once: how large packs may be, where they run, and when to give up."""

from dataclasses import dataclass, field, fields
from typing import Any

LEAST = {"max_pack": 1, "workers": 1, "max_failures": 0}
ONLY_OF = {
    "speed": ("local",),
    "address": ("ray",),
    "cpus": ("ray", "slurm"),
    "gpus": ("ray", "slurm"),
    "memory_gb": ("ray", "slurm"),
    "minutes": ("slurm",),
    "slurm": ("slurm",),
}
"""Settings that only some engines have."""
SPEEDS = ("alone", "off")


@dataclass
class LaunchOptions:
    """What ``hydra.launcher`` of the packed launcher holds.

    ``dry_run`` plans and trains nothing. At most ``max_pack`` trials train together, and ``workers`` packs at once (None
    lets the work and the engine decide). More than ``max_failures`` failed trials end the launch; ``retry_failed``
    trains again what failed in an earlier one. ``speed`` is ``alone`` to measure, before they train, how fast each kind
    of trial is alone (within a tenth of the training time), or ``off``. ``engine`` is where packs run:
    ``local``, ``ray`` (a cluster at ``address``) or ``slurm``. On a cluster a pack gets ``cpus``, ``gpus``,
    ``memory_gb`` and, on SLURM, ``minutes`` (None: what the plan estimates) and sbatch's own options in ``slurm``, such
    as ``partition``.
    """

    dry_run: bool = False
    max_pack: int = 256
    workers: int | None = None
    max_failures: int | None = None
    retry_failed: bool = True
    speed: str = "alone"
    engine: str = "local"
    address: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    minutes: int | None = None
    slurm: dict[str, Any] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """One line for each value that is not allowed and each setting that the engine does not have."""
        plain = LaunchOptions()
        too_small = [
            f"hydra.launcher.{name} = {value}: must be {least} or more"
            for name, least in LEAST.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        unknown = [f"hydra.launcher.speed = {self.speed!r}: must be {' or '.join(SPEEDS)}"] * (self.speed not in SPEEDS)
        elsewhere = [
            f"hydra.launcher.{name} = {getattr(self, name)!r}: "
            f"engine={self.engine} has no such setting; it belongs to {' and '.join(engines)}"
            for name, engines in ONLY_OF.items()
            if self.engine not in engines and getattr(self, name) != getattr(plain, name)
        ]
        return too_small + unknown + elsewhere

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings."""
        return [one.name for one in fields(cls)]
