"""The state of the trials of a sweep, as their folders show it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweep import record
from sweep.claim import SHORT, claimed
from sweep.record import HISTORY_FILE, Record

State = Literal["finished", "pruned", "diverged", "failed", "damaged", "training", "interrupted", "not started"]
Phase = Literal["trains", "waits", "done", "lost"]
_PHASES: dict[State, Phase] = {
    "finished": "done",
    "pruned": "done",
    "training": "trains",
    "interrupted": "waits",
    "not started": "waits",
}


@dataclass(frozen=True)
class Found:
    """A trial as its folder shows it: its state, a detail, and its record where it has one."""

    folder: Path
    state: State
    detail: str = ""
    record: Record | None = None

    @property
    def phase(self) -> Phase:
        """Whether the trial trains now, waits for a launch to train it, is done, or has ended without a result."""
        return _PHASES.get(self.state, "lost")


def find(folder: Path) -> list[Found]:
    """Every trial of the sweep in ``folder``, by name; none where there is no such folder."""
    folders = record.trial_folders(folder) if folder.is_dir() else []
    training = training_among(folder, folders)
    return [look(path, path in training) for path in folders]


def training_among(folder: Path, trials: Iterable[Path]) -> set[Path]:
    """Those of the ``trials`` of the sweep in ``folder`` that a process trains now."""
    ids = {path: path.name[-SHORT:] for path in trials if record.ends_with_identity(path)}
    held = claimed(folder, ids.values())
    return {path for path, trial_id in ids.items() if trial_id in held}


def look(folder: Path, is_training: bool = False) -> Found:
    """The state of the trial in ``folder``; ``is_training`` says that a process holds its claim."""
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
