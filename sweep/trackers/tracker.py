"""The interface of a tracker: rows while a trial trains, its record at the end."""

from typing import Protocol

from sweep.record import Record

Row = dict[str, float]


class Tracker(Protocol):
    """Receives what one trial reports. Training never waits for a tracker and never fails because of one."""

    def log(self, step: int, row: Row) -> None:
        """Take one row of metrics, such as ``{"train/loss": 0.3}``, after ``step`` optimizer updates."""

    def finish(self, record: Record) -> None:
        """Take the final record and release everything."""
