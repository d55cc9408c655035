"""Distributions with entry points, as an installer leaves them, for one test."""

import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep import config as configuration
from sweep import registry
from sweep.adapters.inits.plugin import plugin_init
from sweep.adapters.trained import layer_metrics
from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.record import Record
from sweep.registry import GROUPS
from sweep.store.store import Store
from tests.support.commands import resolved, untimed

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
HERE = LaunchOptions(workers=1)
OURS = ("adapter.init=kaiming seed=0", "adapter.init=kaiming seed=1")
Points = Mapping[str, Mapping[str, str]]
"""Entry points by their group: name → ``module:object``."""


def install(folder: Path, package: str, points: Points, files: Mapping[str, str], version: str = "1.0") -> Path:
    """Write a distribution's metadata and its files into ``folder``, which is then to be on the path."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in own.items()) for group, own in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def install_example(folder: Path) -> Path:
    """``examples/plugin`` with the entry points of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "lora_sweep_example", folder / "lora_sweep_example")
    return install(folder, project["name"], project["entry-points"], {}, project["version"])


def install_init(folder: Path, source: str, name: str = "mine", package: str = "hostile") -> Path:
    """A distribution with one init: ``source`` is the body of its module, which binds ``name``."""
    head = "from functools import partial\nimport random\nimport torch\nfrom sweep.adapters.inits import Init\n"
    module = f"{package}_module"
    return install(folder, package, {GROUPS["init"]: {name: f"{module}:{name}"}}, {f"{module}.py": head + source})


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """Let the distributions in ``folders`` be installed inside the block, and be forgotten after it."""
    before, modules = list(sys.path), set(sys.modules)
    forget()
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and any(Path(file).is_relative_to(folder) for folder in folders):
                del sys.modules[name]
        forget()


def forget() -> None:
    """Let what is installed be read again."""
    for cached in (registry.installed, plugin_init, layer_metrics):
        cached.cache_clear()
    configuration._plugin_options.clear()


def ours_alone(folder: Path) -> dict[str, dict[str, Any]]:
    """What the trials ``OURS`` leave where no plug-in is installed, by trial id."""
    found = run(resolved(*OURS, cache=folder), Store(folder / "s", None), HERE)
    return {one.trial_id: untimed(one) for one in found}


def without_metrics(one: Record) -> dict[str, Any]:
    """A record without what a plug-in's metric adds: its figure, or the note that it was left out."""
    values = untimed(replace(one, notes=()))
    values["environment"].pop("metric_plugins", None)
    for metric in ("eval/mine", "eval/stable_rank"):
        values["metrics"].pop(metric, None)
        values["result"].pop(metric, None)
    return values
