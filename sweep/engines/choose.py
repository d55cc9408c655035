"""The engine that a launch asks for."""

from sweep.engines.engine import Engine
from sweep.engines.options import LaunchOptions
from sweep.errors import ConfigError
from sweep.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "local": "sweep.engines.local:LocalEngine",
        "ray": "sweep.engines.ray:RayEngine",
        "slurm": "sweep.engines.slurm:SlurmEngine",
    },
)


def engine_of(options: LaunchOptions) -> Engine:
    """The engine that was asked for, not yet connected.

    Raises ConfigError when it does not exist, is not installed, or a setting is not one of its own.
    """
    name = options.engine
    if name not in ENGINES.names:
        raise ConfigError([f"hydra.launcher.engine = {name!r}: must be one of {', '.join(ENGINES.names)}"])
    if faults := options.faults():
        raise ConfigError(faults)
    try:
        engine: Engine = ENGINES.load(name)(options)
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed; pip install 'lora-sweep[{name}]'"
        raise ConfigError([f"hydra.launcher.engine = {name!r}: {missing}"]) from None
    return engine
