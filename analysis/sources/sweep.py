"""What every source gives: the trials of a sweep in two tidy frames, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.metrics import OURS, Metric
from sweep.record import STATUSES

if TYPE_CHECKING:
    import pandas as pd


MOST_COLUMNS = 2000
"""Settings and metrics of all trials together; those of a sweep of ours have about 150."""


@dataclass
class Raw:
    """What a reader collects: flat rows of trials, history rows by trial, and what it could not read.

    ``metrics`` is what the records say of their metrics.
    """

    trials: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)

    def add(self, row: dict[str, Any], history: Iterable[dict[str, Any]], source: str) -> None:
        """Add one trial and its history; one that would make the frames too wide is a problem instead."""
        rows = [{**values, "trial_id": row["trial_id"]} for values in history]
        columns = self.columns.union(row, *rows)
        if len(columns) > MOST_COLUMNS:
            self.problems.append(
                f"{source} is left out: with it, the trials would have more than {MOST_COLUMNS:,} columns"
            )
            return
        self.columns = columns
        self.trials.append(row)
        self.history += rows

    def declare(self, metrics: Mapping[str, Metric], trial: str) -> None:
        """Add what one trial's record says of its metrics; a contradiction to an earlier trial is a problem."""
        differing = [name for name, metric in metrics.items() if self.metrics.get(name, metric) != metric]
        if differing:
            self.problems.append(
                f"{trial} describes {', '.join(differing)} differently from the trials before it, whose description is used"
            )
        self.metrics |= {name: metric for name, metric in metrics.items() if name not in self.metrics}


@dataclass(frozen=True)
class Sweep:
    """The trials of one sweep, or of several read together.

    ``trials``: one row a trial, indexed 0…n−1; factors, metrics and identity as columns (see
    ``analysis.columns``). ``history``: one row a logged step, with ``trial_id`` and ``step``.
    ``missing`` names trials that started and left no record. ``problems`` says, in sentences, what could not
    be read. ``folder`` is where a report goes (None for trials that came from the W&B service).
    ``metrics``: what the metrics mean, in the order in which the tasks declare them.
    """

    name: str
    trials: pd.DataFrame
    history: pd.DataFrame
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    folder: Path | None = None
    metrics: Mapping[str, Metric] = field(default_factory=lambda: OURS)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials finished, were pruned, diverged, failed, and are missing (unfinished)."""
        counts = self.trials["status"].value_counts()
        return {status: int(counts.get(status, 0)) for status in STATUSES} | {"missing": len(self.missing)}
