"""The local files of one trial, which are the truth: ``history.jsonl``, ``trial.log`` and ``record.json``."""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from sweep import record
from sweep.files import append_to, start_file
from sweep.record import HISTORY_FILE, RECORD_FILE, Record
from sweep.trackers.tracker import Row

LOG_FILE = "trial.log"


class LocalTracker:
    """Writes into the trial's own folder. Rows wait in memory until ``flush``; no file stays open.

    The history is a new file that identifies this attempt: the attempt that began last keeps the folder.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lines: list[bytes] = []
        (folder / RECORD_FILE).unlink(missing_ok=True)
        start_file(folder / HISTORY_FILE)
        begun = (folder / HISTORY_FILE).lstat()
        self._file, self._size = (begun.st_dev, begun.st_ino), 0

    def log(self, step: int, row: Row) -> None:
        """Keep one row; NaN and infinity become null."""
        self._lines.append(json.dumps(record.finite({"step": step, **row}), allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Append the waiting rows to ``history.jsonl``.

        Raises OSError where they do not fit, and ESTALE where the file is another: a second launch trains the same trial,
        because the sweep's lock file was deleted.
        """
        with append_to(self._folder / HISTORY_FILE) as file:
            now = os.fstat(file.fileno())
            if ((now.st_dev, now.st_ino), now.st_size) != (self._file, self._size):
                reason = f"another launch has begun {self._folder.name} (was .lock deleted?) and continues with it"
                raise OSError(errno.ESTALE, reason, str(self._folder))
            try:
                file.write(b"".join(self._lines))
                file.flush()
            finally:
                self._size = os.fstat(file.fileno()).st_size
        self._lines.clear()

    def note(self, text: str) -> None:
        """Add a line with the time to ``trial.log``."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with append_to(self._folder / LOG_FILE, create=True) as file:
            file.write(f"{stamp} {text}\n".encode(errors="backslashreplace"))

    def finish(self, final: Record) -> None:
        """Write what is left, and the record last."""
        self.flush()
        if final.error:
            self.note(f"{final.status}: {final.error['type']}: {final.error['message']}\n{final.error['traceback']}")
        else:
            self.note(final.status)
        record.write(final, self._folder)
