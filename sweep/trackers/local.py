"""The local files of one trial, which are the truth: ``history.jsonl``, ``trial.log`` and ``record.json``."""

import json
from datetime import UTC, datetime
from pathlib import Path

from sweep import record
from sweep.record import HISTORY_FILE, RECORD_FILE, Record
from sweep.trackers.tracker import Row

LOG_FILE = "trial.log"


class LocalTracker:
    """Writes into the trial's own folder. Rows wait in memory until ``flush``; no file stays open."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lines: list[bytes] = []
        (folder / RECORD_FILE).unlink(missing_ok=True)
        (folder / HISTORY_FILE).write_bytes(b"")

    def log(self, step: int, row: Row) -> None:
        """Keep one row; NaN and infinity become null."""
        self._lines.append(json.dumps(record.finite({"step": step, **row}), allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Append the waiting rows to ``history.jsonl``; OSError where they do not fit."""
        if self._lines:
            with (self._folder / HISTORY_FILE).open("ab") as file:
                file.write(b"".join(self._lines))
            self._lines.clear()

    def note(self, text: str) -> None:
        """Add a line with the time to ``trial.log``."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with (self._folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")

    def finish(self, final: Record) -> None:
        """Write what is left, and the record last."""
        self.flush()
        if final.error:
            self.note(f"{final.status}: {final.error['type']}: {final.error['message']}\n{final.error['traceback']}")
        else:
            self.note(final.status)
        record.write(final, self._folder)
