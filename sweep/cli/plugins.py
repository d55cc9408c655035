"""``python -m sweep plugins``: every name that can be chosen, and the package and version that it comes from."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sweep import __version__
from sweep.errors import ConfigError
from sweep.registry import INITS, METRICS, OURS, REGISTRIES, TASKS, TRACKERS, Plugin, installed
from sweep.text import printable, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what can be chosen and what is wrong with plug-ins: 0 when all can be used, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep plugins",
        description="List inits, tasks, metrics and trackers, ours and those of installed plug-ins. "
        "Exit code 0: every plug-in can be used.",
    )
    parser.parse_args(arguments)
    ours = [(one.kind, name, OURS, __version__) for one in REGISTRIES for name in one.places]
    others = [(one.kind, one.name, one.package, one.version) for one in installed()]
    rows = [[printable(cell) for cell in row] for row in (*ours, *others)]
    print(table(("kind", "name", "package", "version"), rows, left=4))
    faults = list(dict.fromkeys(_faults()))
    for fault in faults:
        print(printable(f"cannot be used: {fault}"))
    return 1 if faults else 0


def _faults() -> Iterator[str]:
    """What is wrong with each plug-in that cannot be used; this imports them."""
    if not installed():
        return
    from sweep.adapters.inits.plugin import plugin_init
    from sweep.adapters.trained import load_metric
    from sweep.cli.plugin_tasks import refusal
    from sweep.config import load_task

    def use_task(plugin: Plugin) -> None:
        load_task(plugin.name)
        if fault := refusal(plugin.name):
            raise ConfigError([fault])

    use: Mapping[str, Callable[[Plugin], Any]] = {
        INITS.kind: plugin_init,
        TASKS.kind: use_task,
        METRICS.kind: load_metric,
        TRACKERS.kind: lambda plugin: TRACKERS.load(plugin.name),
    }
    for plugin in installed():
        try:
            use[plugin.kind](plugin)
        except ConfigError as error:
            yield str(error)
