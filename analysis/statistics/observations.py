"""One metric over the cells of some factors: the type that comparisons, tables and figures take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.columns import SEED, Column
from analysis.statistics.confidence import Generalise
from analysis.statistics.examples import Scored
from analysis.statistics.intervals import Summary, summarise
from analysis.statistics.notes import Note
from analysis.statistics.settings import Cell, Settings, Together


@dataclass(frozen=True)
class Observations:
    """One metric over the cells of some factors.

    ``values``: one row per cell and seed with a value: the factors' levels (text), ``seed``, ``value``.
    ``counts``: one row per cell (index: levels): ``trials``, ``finished``, ``pruned``,
    ``diverged``, ``failed``, ``n``.
    ``levels``: the levels of each factor in order. ``rates``: the learning rate that each tuned cell usually
    chose, by the levels of ``tuned_by`` (the factors, and those averaged over).
    ``notes``: what a reader must know. ``settings``: what else differs between cells, by cell and seed.
    ``averaged``: the factors averaged over; ``detail``: the values before that, with their levels and the place of
    their ``trial`` in the frame of trials.
    ``diverged``: the seeds of each cell that have no value because a trial diverged.
    ``together``: a setting that moves with an asked factor. ``scored``: the scores of single examples behind the
    values, where these were kept; ``generalise``: what verdicts should hold for besides what was tried.
    """

    metric: Column
    factors: tuple[str, ...]
    values: pd.DataFrame
    counts: pd.DataFrame
    levels: dict[str, list[str]]
    rates: dict[Cell, str]
    tuned_by: tuple[str, ...]
    notes: tuple[Note, ...]
    settings: Settings = field(default_factory=dict)
    averaged: tuple[str, ...] = ()
    detail: pd.DataFrame = field(default_factory=pd.DataFrame)
    diverged: Mapping[Cell, frozenset[str]] = field(default_factory=dict)
    together: Together | None = None
    scored: Scored | None = None
    generalise: Generalise = "both"

    def cell(self, cell: Cell) -> pd.Series:
        """The values of one cell by seed, empty where there are none."""
        return self._by_cell[cell] if cell in self._by_cell else pd.Series(dtype=float)

    @cached_property
    def _by_cell(self) -> dict[Cell, pd.Series]:
        value, seed = self.values["value"].to_numpy(), self.values[SEED].to_numpy()
        return {cell: pd.Series(value[rows], seed[rows]) for cell, rows in self._rows.items()}

    @cached_property
    def scores(self) -> np.ndarray | None:
        """``values`` by example, or by cluster of examples (rows, m), where these were kept."""
        if self.scored is None or self.values.empty:
            return None
        return self.scored.of(self.values, self.detail, (*self.factors, SEED))

    @cached_property
    def _rows(self) -> dict[Cell, np.ndarray]:
        """The rows of ``values`` of each cell, in the order of ``cell``."""
        places = self.values.groupby(list(self.factors), sort=False).indices
        return {key if isinstance(key, tuple) else (str(key),): np.asarray(rows) for key, rows in places.items()}

    def differences(self, cell: Cell, baseline: Cell) -> tuple[np.ndarray, np.ndarray | None]:
        """Cell − baseline at the seeds that both have (n,), and the same of each example (n, m) where these were kept."""
        left, right = self.cell(cell).index, self.cell(baseline).index
        shared = left.intersection(right)
        value = self.values["value"].to_numpy()
        mine, theirs = (
            self._rows[side][index.get_indexer(shared)] if len(shared) else np.array([], dtype=int)
            for side, index in ((cell, left), (baseline, right))
        )
        d = None if self.scores is None else self.scores[mine] - self.scores[theirs]
        return value[mine] - value[theirs], d

    def summary(self, cell: Cell) -> Summary:
        """Mean and interval of one cell over its seeds."""
        return summarise(self.cell(cell))

    @property
    def filled(self) -> list[Cell]:
        """The cells that have at least one value, in level order."""
        return [cell for cell, n in zip(self.counts.index, self.counts["n"], strict=True) if n]

    @property
    def cells(self) -> list[Cell]:
        """Every cell that has at least one trial, in level order."""
        return list(self.counts.index)
