"""Why a trial is not trained now: the one place that decides it, for a launch, a pack, a cluster and ``status``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweep import record
from sweep.errors import ConfigError
from sweep.record import HISTORY_FILE, Record
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store

State = Literal["finished", "pruned", "diverged", "failed", "damaged", "training", "interrupted", "not started"]
Why = Literal[
    "exact duplicate",
    "already finished",
    "already pruned",
    "failed before",
    "trained by another launch",
    "its base failed",
]


@dataclass(frozen=True)
class Found:
    """A trial as its folder shows it: its state, what else there is to say, and its record where it has one."""

    folder: Path
    state: State
    detail: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class Skip:
    """The reason for which a trial is not trained, and the record that stands for it where there is one."""

    trial: ResolvedTrial
    why: Why
    detail: str = ""
    record: Record | None = None


def look(folder: Path, is_training: bool = False) -> Found:
    """What became of the trial in ``folder``; ``is_training`` says that a process holds its claim."""
    if is_training:
        return Found(folder, "training")
    try:
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


def decide(
    trial: ResolvedTrial,
    store: Store,
    retry_failed: bool = True,
    planned: Collection[str] = (),
    claimed: Collection[str] = (),
    bases: Mapping[str, Exception] | None = None,
) -> Skip | None:
    """Why ``trial`` is not trained now; None where it is to be trained.

    A finished trial that left all that is asked for, and its whole history, is not trained again; a pruned one as long
    as pruning is asked for; a failed one without ``retry_failed``.

    Args:
        trial: what a launch asks for.
        store: the sweep's folder.
        retry_failed: whether a failure of an earlier launch is tried again.
        planned: ids of trials that this launch trains anyway.
        claimed: ids of trials that another launch is training.
        bases: the errors of bases that could not be made, by the id of a trial that needs one.

    Raises:
        ConfigError: the trial's record cannot be read.

    """
    if trial.id in planned:
        return Skip(trial, "exact duplicate")
    if trial.id in claimed:
        return Skip(trial, "trained by another launch")
    if bases and trial.id in bases:
        return Skip(trial, "its base failed", str(bases[trial.id]))
    found = look(store.trial_folder(trial))
    if found.state == "damaged" and found.record is None:
        raise ConfigError([found.detail])
    if found.record is None or found.record.trial_id != trial.id:
        return None
    match found.state:
        case "finished":
            return None if store.lacks_adapter(trial) else Skip(trial, "already finished", record=found.record)
        case "pruned":
            return Skip(trial, "already pruned", record=found.record) if trial.config.pruning else None
        case "damaged":
            return None
        case _:
            return None if retry_failed else Skip(trial, "failed before", found.detail, found.record)
