"""Follows a sweep's folder while it trains: each look reads what is new since the look before."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.columns import is_factor
from analysis.sources.folders import parse_rows
from analysis.sources.frames import flat_row
from sweep import planned, record
from sweep.files import open_foreign
from sweep.planned import Planned
from sweep.state import Found, look, training_among
from sweep.text import printable

Stamp = tuple[int, int, int] | None
"""Inode, size and time of change of a file; None where there is none."""


@dataclass
class Followed:
    """A trial as the last look found it.

    ``settings`` are its factors with dotted keys, and ``steps`` how many it is to train: empty and None while neither a
    plan nor a record says it. ``rows`` are those that are new, ``at`` is the step of the last one. ``attempt`` tells
    one training of the trial from the next: its rows begin again.
    """

    found: Found
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    pack: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0
    attempt: int = 0
    seen: tuple[bool, Stamp, Stamp] = (False, None, None)
    offset: int = 0


class Follower:
    """Keeps, for each trial of a sweep, how far it has read."""

    def __init__(self, folder: Path, histories: bool = True):
        self.folder = folder
        self.trials: dict[str, Followed] = {}
        self._histories = histories
        self._folders: list[Path] = []
        self._plan: dict[str, Planned] = {}
        self._seen: tuple[Stamp, Stamp] = (None, None)

    def look(self) -> dict[str, Followed]:
        """The trials in which anything has changed since the last look, by name; all of them at the first.

        Raises OSError where the folder is gone.
        """
        here = (_stamp(self.folder), _stamp(self.folder / planned.PLAN_FILE))
        if here != self._seen:
            self._seen, self._folders = here, record.trial_folders(self.folder)
            self._plan = planned.read(self.folder)
        training = training_among(self.folder, self._folders)
        changed = {}
        for path in self._folders:
            name = printable(path.name)
            before = self.trials.get(name)
            is_training, recorded = path in training, _stamp(f"{path}/{record.RECORD_FILE}")
            if before and recorded and before.seen[:2] == (False, recorded) and not is_training:
                continue  # no row comes after the record
            seen = (is_training, recorded, _stamp(f"{path}/{record.HISTORY_FILE}"))
            if before is None or before.seen != seen:
                changed[name] = self.trials[name] = self._updated(path, seen, before)
        return changed

    def _updated(self, path: Path, seen: tuple[bool, Stamp, Stamp], before: Followed | None) -> Followed:
        trial = before or Followed(Found(path, "not started"))
        is_training, _, history = seen
        trial.found = look(path, is_training)
        if trial.found.record is not None:
            science = trial.found.record.trial
            trial.settings = {key: value for key, value in flat_row(science).items() if is_factor(key)}
            trial.steps = trial.found.record.last_step
        elif plan := self._plan.get(path.name):
            trial.settings = {key: value for key, value in flat_row(plan.settings).items() if is_factor(key)}
            trial.steps, trial.pack = plan.steps, plan.pack
        if self._histories:
            self._read_on(trial, history)
        trial.seen = seen
        return trial

    def _read_on(self, trial: Followed, history: Stamp) -> None:
        """Read the whole lines behind the offset; a history that is another file is read from its beginning."""
        trial.rows = []
        before = trial.seen[2]
        if history is None or (before and (history[0] != before[0] or history[1] < trial.offset)):
            trial.offset, trial.at, trial.attempt = 0, 0, trial.attempt + 1
        if history is None or history[1] <= trial.offset:
            return
        try:
            with open_foreign(trial.found.folder / record.HISTORY_FILE, record.LARGEST_HISTORY, links=False) as file:
                file.seek(trial.offset)
                content = file.read(record.LARGEST_HISTORY)
        except OSError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        trial.offset += len(whole)
        trial.rows, _ = parse_rows(whole)
        trial.at = max((row["step"] for row in trial.rows), default=trial.at)


def _stamp(path: str | Path) -> Stamp:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
