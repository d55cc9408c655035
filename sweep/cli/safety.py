"""Check configuration files: only the command line and trusted files reach code, an environment or an upload."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sweep.cli.foreign import check_values, read_config, shown
from sweep.cli.sweep_size import check_sweep_size
from sweep.errors import ConfigError

LARGEST_RESOLVED = 200_000
"""Most characters and values of a configuration with every reference resolved; ours have ten thousand."""
CHOICES = {"hydra/launcher": ("basic", "packed", "joblib"), "hydra/sweeper": ("basic", "optuna")}
"""Launchers and sweepers that a file may choose: none of them sends anything elsewhere."""
PLACES = {
    "run.dir": ("${sweep_folder:${name}}/${trial_folder:}",),
    "sweep.dir": ("${sweep_folder:${name}}",),
    "sweep.subdir": ("${trial_folder:}",),
    "output_subdir": (".hydra", None),
    "job.name": ("sweep",),
}
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
LOG_HANDLERS = ("logging.StreamHandler", "logging.FileHandler")


@dataclass
class FileResult(ConfigResult):
    """The content of a file, and its path unless the file is trusted."""

    foreign: Path | None = None


class CheckedFiles(FileConfigSource):
    """A folder of configuration files, each checked when it is read; real paths decide what is trusted."""

    def __init__(self, source: ConfigSource, trusted: Sequence[Path]):
        super().__init__(source.provider, source.path)
        self._trusted = trusted

    def load_config(self, config_path: str) -> FileResult:
        """Read one file. Raises ConfigError unless it is plain YAML, or where it sets a search path that it may not."""
        path = Path(self.path, self._normalize_file_name(config_path))
        text = read_config(path)
        config, header = OmegaConf.load(io.StringIO(text)), self._get_header_dict(text[:512])
        result = FileResult(self.provider, self.full_path(), config, header)
        if not any(path.resolve().is_relative_to(folder) for folder in self._trusted):
            result.foreign = path
            if OmegaConf.is_dict(config) and "hydra" in config:  # Hydra looks for a search path here before it goes on
                own: Any = OmegaConf.to_container(config, resolve=False)
                check_values({"hydra": own["hydra"]}, path, Path(self.path))
        return result


class CheckedPackage(ImportlibResourcesConfigSource):
    """A package of configuration files; a path that would lead out of it names nothing in it."""

    def is_config(self, config_path: str) -> bool:
        """Whether the package has such a file."""
        return _stays_inside(config_path) and super().is_config(config_path)

    def is_group(self, config_path: str) -> bool:
        """Whether the package has such a folder."""
        return _stays_inside(config_path) and super().is_group(config_path)


class CheckedRepository(ConfigRepository):
    """Hydra's search path; every folder and package on it is a checked one."""

    def __init__(self, config_search_path: ConfigSearchPath, trusted: Sequence[Path]):
        self._trusted = trusted
        super().__init__(config_search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Find the folders and packages of a search path."""
        super().initialize_sources(config_search_path)
        self.sources = [self._checked(source) for source in self.sources]

    def _checked(self, source: ConfigSource) -> ConfigSource:
        if (
            source.scheme() == "file"
        ):  # Hydra loads the classes of its plug-ins anew, so they are not those imported here
            return CheckedFiles(source, self._trusted)
        if source.scheme() == "pkg":
            return CheckedPackage(source.provider, source.full_path())
        return source


class CheckedLoader(ConfigLoaderImpl):
    """Hydra's own loader; it checks files as they are read, and the composed configuration before Hydra acts on it."""

    def __init__(self, config_search_path: ConfigSearchPath, trusted: Sequence[Path]):
        self.config_search_path = config_search_path
        self.repository = CheckedRepository(config_search_path, trusted)
        self._foreign: list[Path] = []

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *given: Any, **named: Any
    ) -> DictConfig:
        """The configuration of a launch or a job. Raises ConfigError for what it may not do."""
        self._foreign = []
        config = super().load_configuration(config_name, overrides, run_mode, *given, **named)
        if self._foreign:
            _check_size(config)
            _check_choices(config, overrides, self._foreign[-1])
        _check_hydra(config)
        if run_mode == RunMode.MULTIRUN:
            check_sweep_size(config, OverridesParser.create(config_loader=self))
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        assert default.config_path is not None
        result = repo.load_config(default.config_path)
        assert result is not None
        group = default.config_path.rpartition("/")[0].replace("/", ".")
        if (default.package or "").split(".")[0] == "hydra" and default.package not in (
            result.header["package"],
            group,
        ):
            raise ConfigError(
                [f"{default.config_path}@{default.package}: only a file of Hydra's own groups goes there"]
            )
        if isinstance(result, FileResult) and result.foreign:
            placed: Any = OmegaConf.to_container(
                self._embed_result_config(result, default.package).config, resolve=False
            )
            check_values(placed, result.foreign, Path(result.path.removeprefix("file://")))
            self._foreign.append(result.foreign)
        return super()._load_single_config(default, repo)


def _stays_inside(config_path: str) -> bool:
    return not config_path.startswith("/") and ".." not in config_path.split("/")


def _check_choices(config: DictConfig, overrides: Sequence[str], foreign: Path) -> None:
    """Raise ConfigError where a foreign file, not the command line, chooses who uploads or where to submit."""
    given = {re.split("[=@]", override.lstrip("+"))[0] for override in overrides}
    for group, allowed in CHOICES.items():
        choice = config.hydra.runtime.choices.get(group)
        if choice not in allowed and group not in given:
            raise ConfigError(
                [f"{shown(foreign)}: chooses {group}={choice}; a file may not, so give it on the command line"]
            )
    if OmegaConf.select(config, "tracker.mode") == "online" and not given & {"tracker", "tracker.mode"}:
        raise ConfigError(
            [
                f"{shown(foreign)}: uploads to W&B; a file may not choose that, so write tracker.mode=online on the command line"
            ]
        )


def _check_size(config: DictConfig) -> None:
    """Raise ConfigError where nested references expand beyond ``LARGEST_RESOLVED``."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    sizes: dict[tuple[str, ...], int] = {}

    def size(key: tuple[str, ...], value: Any) -> int:
        if key not in sizes:
            sizes[key] = 0  # of a reference to itself, which OmegaConf refuses
            sizes[key] = 1 + sum(size((*key, name), item) for name, item in _items(value))
            if isinstance(value, str):
                sizes[key] += len(value) + sum(size(other, _at(values, other)) for other in _references(key, value))
        return sizes[key]

    size((), values)
    if largest := max((key for key in sizes if sizes[key] > LARGEST_RESOLVED), key=len, default=None):
        raise ConfigError(
            [
                f"{'.'.join(largest)}: its references to other keys expand to {sizes[largest]:,} "
                f"characters; at most {LARGEST_RESOLVED:,} are read"
            ]
        )


def _references(key: tuple[str, ...], text: str) -> Iterator[tuple[str, ...]]:
    """The keys to which the value of ``key`` refers; one dot in front is its own level, two the level above."""
    for dots, name in re.findall(r"\$\{(\.*)(\w[\w.]*)\}", text):
        yield (*(key[: -len(dots)] if dots else ()), *name.split("."))


def _at(values: Any, key: Sequence[str]) -> Any:
    for name in key:
        values = dict(_items(values)).get(name)
    return values


def _items(value: Any) -> list[tuple[str, Any]]:
    """The parts of a mapping or list with their names; of a plain value none."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(str(name), item) for name, item in pairs]


def _check_hydra(config: DictConfig) -> None:
    """Raise ConfigError where Hydra would run code, or log or write elsewhere, even for the command line."""
    raw: Any = OmegaConf.to_container(config.hydra, resolve=False)
    if raw.get("callbacks"):
        raise ConfigError(["hydra.callbacks: a configuration names no code to run; leave it out"])
    for part in ("job_logging", "hydra_logging"):
        for _, key, value in _keys(raw.get(part)):
            if (
                key == "()"
                or (key == "class" and value not in LOG_HANDLERS)
                or (key == "filename" and value != LOG_FILE)
            ):
                raise ConfigError([f"hydra.{part}: choose one of Hydra's, as in hydra/{part}=stdout"])
    for part in ("launcher", "sweeper"):
        installed = _targets(ConfigStore.instance().repo["hydra"][part])
        for depth, key, value in _keys(OmegaConf.to_container(config.hydra.get(part), resolve=True)):
            if key == "_target_" and (value not in installed or depth > (part == "sweeper")):
                raise ConfigError(
                    [f"hydra.{part}: {value!r} is code, which a configuration cannot name; choose as in hydra/{part}=…"]
                )
    for key, allowed in PLACES.items():
        section, _, name = key.rpartition(".")
        place = (raw[section] if section else raw)[name]
        if place not in allowed and not (raw["launcher"].get("dry_run") and key == "sweep.dir"):
            raise ConfigError(
                [
                    f"hydra.{key} = {place!r}: results go to outputs/NAME below the folder where you start; "
                    f"NAME is yours, as in name=run1"
                ]
            )


def _targets(store: Any) -> set[str]:
    """The class of every installed launcher, or sweeper and sampler, by its dotted name."""
    if isinstance(store, dict):
        return set().union(*map(_targets, store.values()))
    return {str(store.node.get("_target_"))}


def _keys(value: Any) -> list[tuple[int, str, Any]]:
    """Every key of nested mappings and lists with its depth, counted in mappings, and its value."""
    keys: list[tuple[int, str, Any]] = []
    containers = [(0, value)] if isinstance(value, dict | list) else []
    for depth, container in containers:
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            keys.append((depth, str(key), item))
            if isinstance(item, dict | list):
                containers.append((depth + isinstance(container, dict), item))
    return keys
