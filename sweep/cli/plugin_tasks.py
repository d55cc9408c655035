"""The YAML of plug-ins' tasks on Hydra's search path, as ``task=NAME``."""

import re
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sweep.cli.foreign import read_config
from sweep.errors import ConfigError
from sweep.registry import TASKS, Plugin, PluginError

FOLDER = Path("conf", "task")
"""Where a plug-in's package has the YAML of its tasks, each named after its task."""


def offer_tasks() -> None:
    """Let Hydra choose among the tasks of plug-ins too; no other file of their packages is read, and nothing is imported.

    A file that cannot be read is not offered; ``refusal`` says why.
    """
    for plugin in TASKS.plugins:
        try:
            package, node = _read(plugin)
        except PluginError:
            continue
        ConfigStore.instance().store(
            name=plugin.name, node=node, group="task", package=package, provider=plugin.package
        )


def refusal(task: str) -> str | None:
    """Why the task of a plug-in is not offered; None where it is, or where no plug-in provides it."""
    plugin = TASKS.plugin(task)
    try:
        if plugin:
            _read(plugin)
    except PluginError as error:
        return str(error)
    return None


def _read(plugin: Plugin) -> tuple[str | None, DictConfig]:
    """The package header and the content of a task's YAML. Raises PluginError where there is none to use."""
    if plugin.source is None:
        raise plugin.error("its package is not found")
    path = plugin.source / FOLDER / f"{plugin.name}.yaml"
    if not path.is_file():
        raise plugin.error(f"its package has no {FOLDER / path.name}, which holds the task's defaults")
    try:
        text = read_config(path)
    except ConfigError as error:
        raise plugin.error(str(error)) from None
    header = re.match(r"#\s*@package\s+(\S+)", text)
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    return header[1] if header else None, node
