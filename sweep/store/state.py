"""What became of a trial, as its folder shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweep import record
from sweep.record import HISTORY_FILE, Record

State = Literal["finished", "pruned", "diverged", "failed", "damaged", "training", "interrupted", "not started"]


@dataclass(frozen=True)
class Found:
    """A trial as its folder shows it: its state, a detail, and its record where it has one."""

    folder: Path
    state: State
    detail: str = ""
    record: Record | None = None


def look(folder: Path, is_training: bool = False) -> Found:
    """What became of the trial in ``folder``; ``is_training`` says that a process holds its claim."""
    if is_training:
        return Found(folder, "training")
    try:
        if link := record.link_in(folder):
            return Found(folder, "damaged", f"{link} is a symbolic link, which is not followed; delete it")
        left = record.read(folder)
    except (OSError, ValueError) as error:
        return Found(folder, "damaged", str(error))
    if left is None:
        return Found(folder, "interrupted" if (folder / HISTORY_FILE).exists() else "not started")
    if left.finished and record.lacks_history(left, folder):
        detail = f"{HISTORY_FILE} ends too early; the sweep's command trains it again"
        return Found(folder, "damaged", detail, left)
    detail = f"{left.error.get('type')}: {left.error.get('message')}" if left.error else ""
    return Found(folder, left.status, detail, left)
