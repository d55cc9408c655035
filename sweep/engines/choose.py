"""Where packs run: processes of this machine, a Ray cluster, or SLURM. An engine moves packs and knows no LoRA."""

from typing import TYPE_CHECKING

from sweep.engines.engine import Cluster, Engine
from sweep.errors import ConfigError

if TYPE_CHECKING:
    pass

ENGINES = ("local", "ray", "slurm")


def engine_of(cluster: Cluster) -> Engine | None:
    """The engine that was asked for; None for this machine's own processes.

    Raises ConfigError when it does not exist, is not installed or does not answer, or has no such setting.
    """
    if cluster.engine not in ENGINES:
        raise ConfigError([f"hydra.launcher.engine = {cluster.engine!r}: must be one of {', '.join(ENGINES)}"])
    plain = Cluster()
    only = {"address": ("ray",), "minutes": ("slurm",), "slurm": ("slurm",)} | dict.fromkeys(
        ("cpus", "gpus", "memory_gb"), ("ray", "slurm")
    )
    faults = [
        f"hydra.launcher.{name} = {getattr(cluster, name)!r}: engine={cluster.engine} has no such setting; it is of {' and '.join(engines)}"
        for name, engines in only.items()
        if cluster.engine not in engines and getattr(cluster, name) != getattr(plain, name)
    ]
    if faults:
        raise ConfigError(faults)
    try:
        match cluster.engine:
            case "ray":
                from sweep.engines.ray import RayEngine

                return RayEngine(cluster)
            case "slurm":
                from sweep.engines.slurm import SlurmEngine

                return SlurmEngine(cluster)
    except ModuleNotFoundError as error:
        raise ConfigError([f"hydra.launcher.engine = {cluster.engine!r}: {error.name} is not installed; pip install 'lora-sweep[{cluster.engine}]'"]) from None  # fmt: skip
    return None
