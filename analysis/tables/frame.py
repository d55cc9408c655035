"""Answers as tidy pandas frames: one row a cell, one number or word a column."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from analysis.columns import own_name
from analysis.statistics.compare import Comparison
from analysis.tables.table import Table

UNKNOWN_RATE = {"": None, "nan": None}
"""A cell whose learning rate was not chosen has none."""


def table_frame(table: Table) -> pd.DataFrame:
    """One row a cell: its levels, ``n``, ``mean``, ``std``, interval, chosen ``lr``, ``p`` and ``verdict``.

    ``p`` (Holm-corrected) and ``verdict`` are those against the table's baseline, missing where it has none.
    """
    compared = {item.cell: item for item in table.comparisons}
    factors = [table.rows.name, *([table.columns.name] if table.columns else [])]
    rows = []
    for cell, entry in table.entries.items():
        levels = cell[: len(factors)]
        summary, item = entry.summary, compared.get(levels)
        rows.append(
            {
                **levels_of(factors, levels),
                "metric": own_name(table.metric.name),
                "n": summary.n,
                "mean": summary.mean,
                "std": summary.std,
                "median": summary.median,
                "low": summary.low,
                "high": summary.high,
                "trials": entry.trials,
                "lost": entry.lost,
                "trainable_ratio": entry.ratio,
                "lr": UNKNOWN_RATE.get(entry.rate, entry.rate),
                "best": entry.best,
                **_tested(item),
            }
        )
    return tidy(rows, [*factors, "lr"])


def levels_of(factors: Sequence[str], levels: Sequence[str]) -> dict[Hashable, Any]:
    """The levels of a cell under the names that the factors have in their source."""
    return {own_name(factor): level for factor, level in zip(factors, levels, strict=True)}


def tidy(rows: Sequence[dict[Hashable, Any]], levels: Sequence[str]) -> pd.DataFrame:
    """A frame of ``rows``, in which the levels of a factor are numbers where all of them are."""
    frame = pd.DataFrame(rows)
    for name in map(own_name, levels):
        try:
            frame[name] = pd.to_numeric(frame[name])
        except (ValueError, TypeError):
            continue
    return frame


def _tested(item: Comparison | None) -> dict[Hashable, Any]:
    return {"p": float("nan") if item is None else item.p_holm, "verdict": None if item is None else item.verdict}
