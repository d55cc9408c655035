"""The interface of a tracker: rows while a trial trains, its record at the end."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sweep.metrics import Metric
from sweep.record import Record

Row = dict[str, float]


class Tracker(Protocol):
    """Receives what one trial reports. Training never waits for a tracker and never fails because of one.

    A plug-in's is a class, made for each trial as ``NewTracker`` says.
    """

    def log(self, step: int, row: Row) -> None:
        """Take one row of metrics, such as ``{"train/loss": 0.3}``, after ``step`` optimizer updates."""

    def finish(self, record: Record) -> None:
        """Take the final record and release everything."""


class NewTracker(Protocol):
    """What makes a plug-in's tracker of one trial."""

    def __call__(self, folder: Path, name: str, config: Mapping[str, Any], metrics: Iterable[Metric]) -> Tracker:
        """Begin to track a trial.

        Args:
            folder: the trial's own folder.
            name: its readable name, which ends with the beginning of its id.
            config: the trial as flat plain values, ``{"adapter.rank": 8, "seed": 0}``.
            metrics: what its rows and its record can hold.

        """
