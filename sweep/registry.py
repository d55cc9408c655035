"""The allowed names of what can be chosen, ours and those of plug-ins, without importing what they name.

A plug-in is a distribution with entry points in one of the groups ``lora_sweep.inits``, ``.tasks``, ``.metrics`` and
``.trackers``. Reading the names imports nothing of it.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError

GROUPS = {
    "init": "lora_sweep.inits",
    "task": "lora_sweep.tasks",
    "metric": "lora_sweep.metrics",
    "tracker": "lora_sweep.trackers",
}
"""The entry-point group of each kind of plug-in."""
OURS = "lora-sweep"

log = logging.getLogger(__name__)


class PluginError(ConfigError):
    """A plug-in cannot be used; the message names its package and the place."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed distribution: what ``name`` leads to, and whose it is."""

    kind: str
    name: str
    place: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def module(self) -> str:
        """The module that holds the object."""
        return self.place.partition(":")[0]

    @cached_property
    def source(self) -> Path | None:
        """The folder of its top-level package, or its single file; None where Python does not find it."""
        spec = find_spec(self.module.partition(".")[0])  # of a top-level name this imports nothing
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin)
        return path.parent if path.name == "__init__.py" else path

    @cached_property
    def identity(self) -> str:
        """Distribution, version and the hash of its source files, for the identity of the trials that use it."""
        digest = hashlib.sha256()
        if self.source is not None:
            files = sorted(self.source.rglob("*.py")) if self.source.is_dir() else [self.source]
            for path in files:
                digest.update(path.relative_to(self.source.parent).as_posix().encode() + path.read_bytes())
        return f"{self} {digest.hexdigest()[:16]}"

    def error(self, what: str, cause: BaseException | None = None) -> PluginError:
        """The error that says what is wrong with it, and where ``cause`` was raised in its files."""
        where = self.place if cause is None else self._line(cause) or self.place
        said = f": {type(cause).__name__}: {cause}" if cause else ""
        return PluginError([f"{self.kind} {self.name} of the plug-in {self} ({where}): {what}{said}"])

    def raised(self, error: BaseException) -> bool:
        """Whether ``error`` passed through a file of the plug-in."""
        return self._line(error) is not None

    def _line(self, error: BaseException) -> str | None:
        """The last line of the plug-in's own files that ``error`` passed through."""
        last, step = None, error.__traceback__
        while step is not None:
            path = Path(step.tb_frame.f_code.co_filename)
            if self.source is not None and path.is_relative_to(self.source):
                last = f"{path.relative_to(self.source.parent)}, line {step.tb_lineno}"
            step = step.tb_next
        return last


@dataclass(frozen=True)
class Registry:
    """Names of one kind, and where each of ours leads: ``module:object``. Plug-ins add to the kinds in ``GROUPS``."""

    kind: str
    places: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed names, ours first, in the order in which they are listed to a user."""
        return tuple(dict.fromkeys((*self.places, *(plugin.name for plugin in self.plugins))))

    @property
    def plugins(self) -> list[Plugin]:
        """Every plug-in of this kind."""
        return [plugin for plugin in installed() if plugin.kind == self.kind]

    def plugin(self, name: str) -> Plugin | None:
        """The plug-in that gives ``name``; None where it is ours or unknown."""
        return next((plugin for plugin in self.plugins if plugin.name == name and name not in self.places), None)

    def conflict(self, name: str) -> str | None:
        """What is wrong where several give ``name``."""
        givers = [OURS] * (name in self.places) + [str(one) for one in self.plugins if one.name == name]
        if len(givers) < 2:
            return None
        return f"given by {' and by '.join(givers)}; uninstall what you do not want"

    def shown(self, name: str, quoted: bool = False) -> str:
        """``name`` as a message shows it, with the plug-in that it comes from."""
        plugin, text = self.plugin(name), repr(name) if quoted else name
        return f"{text} (of {plugin})" if plugin else text

    def load(self, name: str) -> Any:
        """What ``name`` names; its module is imported now. Raises PluginError where a plug-in's cannot be."""
        if fault := self.conflict(name):
            raise PluginError([f"{self.kind} {name}: {fault}"])
        plugin = self.plugin(name)
        if plugin is None:
            return load(self.places[name])
        try:
            return load(plugin.place)
        except (Exception, SystemExit) as error:
            raise plugin.error("cannot be imported", error) from error


def load(place: str) -> Any:
    """The object at ``place``, which is ``module:object``; its module is imported now."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


@cache
def installed() -> tuple[Plugin, ...]:
    """Every plug-in of every installed distribution, by package and name; read once in a process."""
    plugins: dict[tuple[str, str, str], Plugin] = {}
    for distribution in distributions():
        text = distribution.read_text("entry_points.txt") or ""
        for plugin in _plugins_of(distribution, text) if "lora_sweep." in text else ():
            plugins.setdefault((plugin.package, plugin.kind, plugin.name), plugin)  # the first on the path is imported
    return tuple(plugins[key] for key in sorted(plugins))


def _plugins_of(distribution: Distribution, text: str) -> Iterator[Plugin]:
    kinds = {group: kind for kind, group in GROUPS.items()}
    try:
        package, version = re.sub(r"[-_.]+", "-", distribution.name).lower(), distribution.version
        points = [point for point in distribution.entry_points if point.group in kinds]
    except Exception as error:  # metadata of other packages may be anything
        log.warning("a plug-in's entry_points.txt or METADATA cannot be read and is passed over: %r in %r", error, text)
        return
    for point in points:
        yield Plugin(kinds[point.group], point.name, point.value, package, version)


INITS = Registry(
    "init",
    {
        "kaiming": "sweep.adapters.inits.random:kaiming",
        "gaussian": "sweep.adapters.inits.random:gaussian",
        "normal": "sweep.adapters.inits.random:normal",
        "both_random": "sweep.adapters.inits.random:both_random",
        "init_b": "sweep.adapters.inits.random:init_b",
        "orthogonal": "sweep.adapters.inits.random:orthogonal",
        "pissa": "sweep.adapters.inits.from_weights:pissa",
        "milora": "sweep.adapters.inits.from_weights:milora",
        "olora": "sweep.adapters.inits.from_weights:olora",
        "mica": "sweep.adapters.inits.from_weights:mica",
        "eva": "sweep.adapters.inits.from_data:eva",
        "lora_ga": "sweep.adapters.inits.from_data:lora_ga",
    },
)
TASKS = Registry(
    "task",
    {
        "toy_regression": "sweep.tasks.toy_regression.options:ToyRegressionOptions",
        "mnist": "sweep.tasks.mnist.options:MnistOptions",
        "transformer": "sweep.tasks.transformer.options:TransformerOptions",
        "causal_lm": "sweep.tasks.causal_lm.options:CausalLMOptions",
    },
)
METRICS = Registry("metric", {})
"""Metrics of trained layers, all of them plug-ins'; those of a task stand with the task."""
TRACKERS = Registry("tracker", {})
"""Trackers beside the local files and W&B, all of them plug-ins'."""
REGISTRIES = (INITS, TASKS, METRICS, TRACKERS)
