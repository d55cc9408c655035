"""What an untrusted configuration file may set: plain values of a trial, and a few settings of Hydra."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sweep.errors import ConfigError
from sweep.files import read_foreign

LARGEST = 256 * 1024
"""Largest file, in bytes; ours have three thousand."""
DEEPEST = 50
"""Deepest nesting in a file; ours have five levels."""
MOST_VALUES = 5_000
"""Most values and interpolations in a file; ours have sixty."""
MODES = ("RUN", "MULTIRUN")
DIRECTIONS = ("minimize", "maximize")
NUMBERS = {
    "launcher": {
        "max_pack",
        "workers",
        "max_failures",
        "retry_failed",
        "cpus",
        "gpus",
        "memory_gb",
        "minutes",
        "n_jobs",
        "timeout_min",
        "cpus_per_task",
        "gpus_per_node",
        "mem_gb",
        "nodes",
    },
    "sweeper": {"n_trials", "n_jobs", "max_failure_rate", "max_batch_size"},
    "sampler": {"seed", "n_startup_trials", "n_ei_candidates", "population_size", "multivariate"},
}
"""Settings of Hydra's launchers, sweepers and samplers that take a number and affect only the amount of work."""
SWEPT = re.compile(r"(?!(?:hydra|tracker|cache)\b)[a-z_]\w*(?:[./]\w+)*")
"""Keys that a file may sweep over: the trial's own, except where it uploads and where its cache is."""
FILES = ("task.source_text", "task.target_text", "task.data", "task.model", "adapter.peft")
"""Keys that may name a file or a folder to read."""
OUTSIDE = re.compile(r"(?:^|[^\w.-])/|\.\.|\$\{")
_KEY = r"\$\{(?!\.*hydra\b)\.*\w[\w.]*\}"
REFERENCE = re.compile(rf"{_KEY}|\$\{{times:(?:[\w.,+ -]|{_KEY})*\}}|\$\{{oc\.env:WANDB_PROJECT(?:,[\w.-]*)?\}}")
"""Interpolations that a file may hold: a key of the trial, a product of keys, and the one environment variable that our own files use."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path) -> str:
    """The text of a YAML file of bounded size and depth that holds only plain nested values.

    An alias can refer to its own parent, or expand to more values than memory holds.
    Raises ConfigError with the file and the reason.
    """
    try:
        text = read_foreign(path, LARGEST).decode()
        fault = next(_structure_faults(text), None)
    except OSError as error:
        fault = str(error.strerror)
    except UnicodeDecodeError:
        fault = "not a UTF-8 text"
    except yaml.YAMLError as error:
        fault = str(error)
    if fault:
        raise ConfigError([f"{shown(path)}: {fault}"])
    return text


def shown(path: Path) -> str:
    """``path`` as its user wrote it where it is below the folder where the command runs."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _structure_faults(text: str) -> Iterator[str]:
    depth, values = 0, text.count("${")
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
                values += 1
                depth += isinstance(event, yaml.CollectionStartEvent)
                if depth > DEEPEST:
                    yield f"{where}: more than {DEEPEST} levels deep"
                if values > MOST_VALUES:
                    yield f"{where}: more than {MOST_VALUES:,} values"


def check_values(values: Mapping[Any, Any], path: Path, folder: Path) -> None:
    """Raise ConfigError for the first of ``values`` that an untrusted file may not set.

    Args:
        values: the content of the file, unresolved, below the key where it goes in the whole configuration.
        path: the file.
        folder: the configuration folder in which it was found.

    """
    for key, value in values.items():
        check = _hydra_setting if key == "hydra" else _setting
        for inner, item in _leaves(value, (str(key),)):
            if not check(inner, item):
                name = ".".join(inner)
                raise ConfigError(
                    [
                        f"{shown(path)}: {name} = {item!r}: a file may not set this; give it on the command "
                        f"line, or trust the folder with --trust {shown(folder)}"
                    ]
                )


def _setting(key: tuple[str, ...], value: Any) -> bool:
    """Whether a file may set a key of the trial to ``value``."""
    if key[0] == "cache" or (key == ("tracker", "mode") and value not in ("offline", "none")):
        return False
    if key[:2] == ("tracker", "also"):
        return False
    if not isinstance(value, str):
        return True
    if len(key) == 1 and key[0] in ("task", "adapter", "tracker") and "${" in value:  # keys that are not seen here
        return False
    if ".".join(key) in FILES:
        return OUTSIDE.search(value) is None
    return "${" not in REFERENCE.sub("", value)


def _hydra_setting(key: tuple[str, ...], value: Any) -> bool:
    """Whether a file may set a key of Hydra to ``value``."""
    match key[1:]:
        case ("mode",):
            return value in MODES
        case ("sweeper", "direction"):
            return value in DIRECTIONS
        case ("sweeper", "params", swept) | ("sweeper", "params", swept, _):
            may_be_file = swept in FILES or "." not in swept
            text = str(value)
            return bool(SWEPT.fullmatch(swept)) and "${" not in text and not (may_be_file and OUTSIDE.search(text))
        case (("launcher" | "sweeper") as section, name) | ("sweeper", "sampler" as section, name):
            return name in NUMBERS[section] and isinstance(value, int | float | None)
        case _:
            return False


def _leaves(value: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every plain value with the keys that lead to it; an empty mapping sets nothing."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*key, str(name)))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _leaves(item, (*key, str(position)))
    else:
        yield key, value
