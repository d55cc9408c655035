"""Why a trial is not trained now: the one place that decides it, for a launch, a pack, a cluster and ``status``."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sweep.errors import ConfigError
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.state import look
from sweep.store.store import Store

Why = Literal["exact duplicate", "already finished", "already pruned", "failed before", "trained by another launch"]


@dataclass(frozen=True)
class Skip:
    """The reason for which a trial is not trained, and the record that stands for it where there is one."""

    trial: ResolvedTrial
    why: Why
    detail: str = ""
    record: Record | None = None


def decide(
    trial: ResolvedTrial,
    store: Store,
    retry_failed: bool = True,
    planned: Collection[str] = (),
    claimed: Collection[str] = (),
) -> Skip | None:
    """Why ``trial`` is not trained now; None where it is to be trained.

    A finished trial that left all that is asked for (its adapter, the metrics of plug-ins), and its whole history, is
    not trained again; a pruned one as long as pruning is asked for; a failed one without ``retry_failed``.

    Args:
        trial: what a launch asks for.
        store: the sweep's folder.
        retry_failed: whether a failure of an earlier launch is tried again.
        planned: ids of trials that this launch trains anyway.
        claimed: ids of trials that another launch is training.

    Raises:
        ConfigError: the trial's record cannot be read.

    """
    if trial.id in planned:
        return Skip(trial, "exact duplicate")
    if trial.id in claimed:
        return Skip(trial, "trained by another launch")
    left = look(store.trial_folder(trial))
    if left.state == "damaged" and left.record is None:
        raise ConfigError([left.detail])
    if left.record is None or left.record.trial_id != trial.id:
        return None
    match left.state:
        case "finished":
            lacking = store.lacks_adapter(trial) or store.lacks_metrics(trial, left.record)
            return None if lacking else Skip(trial, "already finished", record=left.record)
        case "pruned":
            return Skip(trial, "already pruned", record=left.record) if trial.config.pruning else None
        case "damaged":
            return None
        case _:
            return None if retry_failed else Skip(trial, "failed before", left.detail, left.record)
