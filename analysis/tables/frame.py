"""Answers as tidy pandas frames: one row a cell, one number or word a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.columns import own_name
from analysis.statistics.compare import Comparison
from analysis.statistics.effects import Effects
from analysis.statistics.observations import Observations
from analysis.tables.table import Table
from analysis.tables.wording import sentence


def table_frame(table: Table) -> pd.DataFrame:
    """One row a cell: its levels, ``n``, ``mean``, ``std``, interval, ``chosen_lr``, ``p`` and ``verdict``.

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
                **dict(zip(factors, levels, strict=True)),
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
                "chosen_lr": entry.rate or None,
                "best": entry.best,
                **_tested(item),
            }
        )
    return tidy(rows, factors)


def comparison_frame(observations: Observations, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row a comparison: the cell's level and ``mean``, the paired ``difference`` with its interval, ``p``, ``verdict``.

    ``low``, ``high``, ``std`` and ``effect`` (Cohen's d_z) are of the difference, ``p`` is Holm-corrected, ``detectable`` is
    the difference that would have been seen, and ``words`` is the verdict as a sentence.
    """
    rows = []
    for item in comparisons:
        difference = item.difference
        rows.append(
            {
                **dict(zip(observations.factors, item.cell, strict=True)),
                "baseline": "/".join(item.baseline),
                "metric": own_name(observations.metric.name),
                "n": difference.n,
                "mean": observations.summary(item.cell).mean,
                "difference": difference.mean,
                "std": difference.std,
                "low": difference.low,
                "high": difference.high,
                "chosen_lr": observations.rates.get(item.cell),
                "p": item.p_holm,
                "effect": difference.effect,
                "detectable": item.detectable,
                "verdict": item.verdict,
                "words": sentence(item, observations.metric.unit),
            }
        )
    return tidy(rows, observations.factors)


def effects_frame(effects: Effects) -> pd.DataFrame:
    """One row a factor or interaction: degrees of ``freedom``, ``share`` of the variance, ``partial`` η², ``f``, both p."""
    rows = [
        asdict(effect) | {"source": " × ".join(map(own_name, effect.source.split(" × ")))} for effect in effects.effects
    ]
    return pd.DataFrame(rows)


def tidy(rows: Sequence[dict[str, Any]], factors: Sequence[str]) -> pd.DataFrame:
    """A frame of ``rows``: factors under the names of their source, levels as numbers where all of them are."""
    frame = pd.DataFrame(rows)
    for name in (*factors, "baseline", "chosen_lr"):
        try:
            frame[name] = pd.to_numeric(frame[name])
        except (KeyError, ValueError, TypeError):
            continue
    return frame.rename(columns={name: own for name in factors if (own := own_name(name)) not in frame})


def _tested(item: Comparison | None) -> dict[str, Any]:
    return {"p": float("nan") if item is None else item.p_holm, "verdict": None if item is None else item.verdict}
