"""What a configuration may not do, whoever wrote it: run code, write outside ``outputs/``, or grow without bounds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from sweep.errors import ConfigError

DEEPEST = 50
"""Levels of nesting in a file; ours have five."""
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.", "optuna.samplers.")
"""Where the code lies that a choice of a launcher, a sweeper or its sampler brings."""
PLACES = {
    "run.dir": ("${sweep_folder:${name}}/${trial_folder:}",),
    "sweep.dir": ("${sweep_folder:${name}}",),
    "sweep.subdir": ("${trial_folder:}",),
    "output_subdir": (".hydra", None),
    "job.name": ("sweep",),
}
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
LOG_HANDLERS = ("logging.StreamHandler", "logging.FileHandler")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CheckedLoader(ConfigLoaderImpl):
    """Hydra's own loader; what it composes is checked before Hydra makes anything of it."""

    def load_configuration(self, *given: Any, **named: Any) -> DictConfig:
        """The configuration of a launch. Raises ConfigError for what it may not do."""
        return _checked(super().load_configuration(*given, **named))

    def load_sweep_config(self, *given: Any, **named: Any) -> DictConfig:
        """The configuration of one job. Raises ConfigError for what it may not do."""
        return _checked(super().load_sweep_config(*given, **named))


def check_files(folder: Path) -> None:
    """Raise ConfigError for YAML below ``folder`` that cannot be read, or is more than plain nested values.

    An alias can stand for its own parent, or, nine times nine times nine, for more values than memory holds.
    """
    for path in sorted(folder.rglob("*.yaml")):
        try:
            fault = next(_faults(path.read_bytes().decode()), None)
        except UnicodeDecodeError:
            fault = "not a UTF-8 text"
        except yaml.YAMLError as error:
            fault = str(error)
        if fault:
            raise ConfigError([f"{path}: {fault}"])


def _faults(text: str) -> Iterator[str]:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        assert event.start_mark is not None
        where = f"line {event.start_mark.line + 1}"
        match event:
            case yaml.AliasEvent():
                yield f"{where}: aliases are not read here; write the value itself, or refer to it as ${{key}}"
            case yaml.CollectionEndEvent():
                depth -= 1
            case yaml.ScalarEvent() | yaml.CollectionStartEvent():
                if event.tag not in (None, "!"):
                    yield f"{where}: tags are not read here; leave out {event.tag}"
                if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                    yield f"{where}: must hold keys and values, as in key: value"
                depth += isinstance(event, yaml.CollectionStartEvent)
                if depth > DEEPEST:
                    yield f"{where}: more than {DEEPEST} levels deep"


def _checked(config: DictConfig) -> DictConfig:
    node = config.hydra
    if not OmegaConf.is_dict(node):
        raise ConfigError(["hydra: must hold Hydra's settings; leave it out"])
    raw: Any = OmegaConf.to_container(node, resolve=False)
    if raw.get("callbacks"):
        raise ConfigError(["hydra.callbacks: a configuration names no code to run; leave it out"])
    for part in ("job_logging", "hydra_logging"):
        for key, value in _leaves(raw.get(part)):
            if key == "()" or (key == "class" and value not in LOG_HANDLERS) or (key == "filename" and value != LOG_FILE):  # fmt: skip
                raise ConfigError([f"hydra.{part}: choose one of Hydra's, as in hydra/{part}=stdout"])
    for part in ("launcher", "sweeper"):
        for key, value in _leaves(OmegaConf.to_container(node.get(part), resolve=True)):
            if key == "_target_" and not str(value).startswith(PLUGINS):
                raise ConfigError([f"hydra.{part}: {value!r} is code, which a configuration cannot name; choose as in hydra/{part}=…"])  # fmt: skip
    for key, allowed in PLACES.items():
        section, _, name = key.rpartition(".")
        found = (raw[section] if section else raw)[name]
        if found not in allowed and not (raw["launcher"].get("dry_run") and key == "sweep.dir"):
            raise ConfigError([f"hydra.{key} = {found!r}: results go to outputs/NAME below the folder where you start; NAME is yours, as in name=run1"])  # fmt: skip
    return config


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings and lists with its value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
