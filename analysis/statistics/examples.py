"""Scores of the trials behind each cell and seed on single held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.columns import COST, SIZE, TRIAL, WHILE_TRAINING, Column
from analysis.sources.scores import Sheet, read
from analysis.statistics.confidence import Generalise
from analysis.statistics.notes import Note, info, warning

SAME = 1e-4
"""Relative difference up to which the scores of a trial, in 32 bits, agree with its record."""


@dataclass(frozen=True)
class Scored:
    """The scores ``sheet`` of the trials ``rows``, by their place in the frame of trials."""

    sheet: Sheet
    rows: pd.Index

    def of(self, values: pd.DataFrame, detail: pd.DataFrame, keys: Sequence[str]) -> np.ndarray:
        """The metric of each row of ``values`` by example, or by cluster of examples (N, m): the mean of its trials.

        Both frames have the columns ``keys``; ``detail`` has a row for each trial with a ``value``.
        """
        keys = list(keys)
        behind = detail[detail["value"].notna()]
        row = pd.MultiIndex.from_frame(values[keys]).get_indexer(pd.MultiIndex.from_frame(behind[keys]))
        trial = self.rows.get_indexer(pd.Index(behind[TRIAL]))
        order = np.argsort(row, kind="stable")[np.count_nonzero(row < 0) :]
        counts = np.bincount(row[order], minlength=len(values))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(self.sheet.sums[trial[order]], starts, dtype=float) / counts[:, None]
        return by_unit(sums, self.sheet.weight, self.sheet.cluster)


def by_unit(sums: np.ndarray, weight: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """A ratio R = Σ ``sums`` / Σ ``weight`` (N, E) linearised in its examples, or in clusters of them (N, m).

    The part of unit e, whose examples are summed first, is R + (z_e − R w_e) / mean(w): the mean over units is R, their
    spread that of the ratio (linearisation by Taylor, Cochran 1977, section 6).
    """
    _, unit = np.unique(cluster, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
    if len(starts) < len(order):
        sums, weight = np.add.reduceat(sums[:, order], starts, axis=1), np.add.reduceat(weight[order], starts)
    ratio = sums.sum(axis=1, keepdims=True) / weight.sum()
    parts: np.ndarray = ratio + (sums - ratio * weight) / weight.mean()
    return parts


def score(trials: pd.DataFrame, frame: pd.DataFrame, column: Column) -> tuple[pd.DataFrame, Scored | None, list[Note]]:
    """``frame`` with the values that are compared, the scores behind them, and notes on these.

    ``frame`` has a row for each compared trial: its ``value`` and, as ``trial``, its place in ``trials``. Values are those
    of the records, unless the scores are of ``evaluate`` or of examples that not every trial has.
    """
    rows = pd.Index(frame.loc[frame["value"].notna(), TRIAL].unique())
    folders = trials.loc[rows, "folder"] if "folder" in trials else pd.Series(dtype=object)
    if not _is_of_examples(column) or folders.isna().any() or folders.empty:
        return frame, None, []
    sheet, problems = read(list(folders), column.name)
    if sheet is None or sheet.units < 2:
        return frame, None, [warning("scores left out", problems=problems)] if problems else []
    values = pd.Series(sheet.values, rows)
    if sheet.whole and not sheet.of_evaluate:
        apart = ~np.isclose(values, trials.loc[rows, column.name], rtol=SAME, atol=0)
        if apart.any():
            wrong = [f"{folder}: its scores are not those of its record" for folder in folders[apart]]
            return frame, None, [warning("scores left out", problems=wrong)]
    else:
        frame = frame.assign(value=frame[TRIAL].map(values).where(frame["value"].notna()))
    return frame, Scored(sheet, rows), _of_sheet(sheet, column)


def _is_of_examples(column: Column) -> bool:
    """Whether a metric is measured on held-out examples."""
    return not column.name.startswith((COST, SIZE, WHILE_TRAINING))


def _of_sheet(sheet: Sheet, column: Column) -> list[Note]:
    """Which scores the values are of, where these are not simply those of the records."""
    notes = [] if sheet.whole else [warning("shared examples", examples=sheet.count)]
    if sheet.of_evaluate:
        return [info("evaluated", metric=column.name, examples=sheet.count), *notes]
    if sheet.evaluated:
        return [info("partly evaluated", evaluated=sheet.evaluated, trials=len(sheet.sums)), *notes]
    return notes


def said(scored: Scored | None, column: Column, generalise: Generalise, seeds: int) -> list[Note]:
    """A note on what verdicts on this metric generalise to; none for a metric without held-out examples."""
    if not _is_of_examples(column) or column.better is None:
        return []
    if scored is None:
        return [info("seeds only", metric=column.name)]
    sheet = scored.sheet
    clusters = sheet.units if sheet.clustered else None
    return [info("generalises", to=generalise, seeds=seeds, examples=sheet.count, clusters=clusters)]
