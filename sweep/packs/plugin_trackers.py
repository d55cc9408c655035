"""The trackers of plug-ins, whatever they do: a fault costs one warning and the rest of that trial's rows there."""

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

from sweep.guard import guarded
from sweep.record import Record
from sweep.registry import TRACKERS, Plugin, PluginError
from sweep.resolve import ResolvedTrial
from sweep.trackers.tracker import NewTracker, Row, Tracker

log = logging.getLogger(__name__)


class PluginTracker:
    """The tracker of a plug-in for one trial; after its first fault it is not called again."""

    def __init__(self, plugin: Plugin, trial: ResolvedTrial, folder: Path):
        self._plugin, self._trial = plugin, trial
        self._tracker: Tracker | None = None

        def begin() -> None:
            new: NewTracker = TRACKERS.load(plugin.name)
            self._tracker = new(folder, trial.label, trial.flat(), trial.metrics)

        self._call("beginning", begin)

    def log(self, step: int, row: Row) -> None:
        """Hand on a copy of one row."""
        if tracker := self._tracker:
            self._call("logging", lambda: tracker.log(step, dict(row)))

    def finish(self, record: Record) -> None:
        """Hand on the record."""
        if tracker := self._tracker:
            self._call("finishing", lambda: tracker.finish(deepcopy(record)))

    def _call(self, doing: str, call: Callable[[], None]) -> None:
        try:
            with guarded(self._plugin, doing):
                call()
        except PluginError as error:
            self._tracker = None
            log.warning("%s; the local record of %s is whole", error, self._trial.label)


def plugin_trackers(pack: Sequence[ResolvedTrial], folders: Sequence[Path]) -> list[list[PluginTracker]]:
    """For each tracker that ``tracker.also`` names, those of the trials of ``pack``, which write into ``folders``."""
    plugins = [TRACKERS.plugin(name) for name in pack[0].config.tracker.also]
    return [
        [PluginTracker(plugin, trial, folder) for trial, folder in zip(pack, folders, strict=True)]
        for plugin in plugins
        if plugin
    ]
