"""One metric over rows × columns as a table for a paper: mean ± 95% t interval, n, marks, footnotes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.columns import RATIO, SEED, Column, describe
from analysis.errors import BadRequestError
from analysis.sources.load import Sweep
from analysis.statistics.cells import Cell, observe
from analysis.statistics.compare import against, clear_best, compare
from analysis.statistics.intervals import INTERVAL_NAME, Summary
from analysis.statistics.levels import REFERENCES, is_adapter, labels, select

ONE_COLUMN = ("",)


@dataclass(frozen=True)
class Entry:
    """One cell of the table. ``ratio`` is the trainable ratio (NaN where it is no single number)."""

    summary: Summary
    trials: int
    lost: int
    best: bool
    mark: str
    ratio: float
    rate: str


@dataclass(frozen=True)
class Table:
    """A table before it is written in any format.

    ``entries`` maps (row level, column level) to its entry; a table without a column factor has the single
    column "". ``spanning`` names the rows (full, none) whose one entry holds for every column.
    """

    metric: Column
    rows: Column
    columns: Column | None
    row_levels: tuple[str, ...]
    column_levels: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    spanning: tuple[str, ...]
    decimals: int
    caption: str
    notes: tuple[str, ...]


def build(
    sweep: Sweep,
    rows: str,
    columns: str | None,
    metric: str,
    baseline: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Build the table of ``metric``.

    ``baseline``: a level of ``rows`` (each cell is compared inside its own column) or a row and a
    column level (one cell for all).
    Raises BadRequestError for unknown names and for questions the trials cannot answer.
    """
    if SEED in (rows, columns):
        raise BadRequestError("the seed is what the table averages over; choose another factor")
    trials = select(sweep.trials, where or {})
    factors = (rows,) if columns is None else (rows, columns)
    observations = observe(trials, factors, metric)
    if not observations.filled:
        raise BadRequestError(f"no finished trial has a value of {metric}")
    marks: dict[Cell, str] = {}
    notes = list(observations.notes)
    if baseline:
        found = compare(observations, against(observations, tuple(baseline)))
        marks = {item.cell: "*" for item in found if item.significant}
        base = " / ".join(baseline)
        how = f"paired t tests at equal seeds, Holm-corrected over {len(found)} comparisons"
        notes.append(
            f"* differs from {base} ({how}, p < 0.05)." if marks else f"No cell is distinguishable from {base} ({how})."
        )
    best = clear_best(observations, observations.cells)
    notes.append(
        "Bold: better than every other trained cell (paired t tests, Holm-corrected)."
        if best
        else "No cell is in bold: none is distinguishably better than every other."
    )
    ratios = _ratios(trials, factors)
    entries = {}
    counts = observations.counts.to_dict("index")
    for cell in observations.cells:
        count = counts[cell]
        place = (cell[0], cell[1] if columns else "")
        entries[place] = Entry(
            observations.summary(cell),
            int(count["trials"]),
            int(count["diverged"] + count["failed"]),
            cell == best,
            marks.get(cell, ""),
            ratios.get(cell, math.nan),
            observations.rates.get(cell, ""),
        )
    both = columns is not None and is_adapter(rows) and is_adapter(columns)
    spanning = tuple(level for level in observations.levels[rows] if both and level in REFERENCES)
    column_levels = ONE_COLUMN if columns is None else tuple(observations.levels[columns])
    return Table(
        metric=observations.metric,
        rows=describe(rows),
        columns=describe(columns) if columns else None,
        row_levels=tuple(observations.levels[rows]),
        column_levels=tuple(level for level in column_levels if not (both and level in REFERENCES)),
        entries=entries,
        spanning=spanning,
        decimals=_decimals([entry.summary for entry in entries.values()]),
        caption=_caption(sweep, observations.metric, where or {}),
        notes=(*notes, *_left_out(sweep)),
    )


def _caption(sweep: Sweep, metric: Column, where: Mapping[str, Sequence[str]]) -> str:
    better = f", {metric.better} is better" if metric.better else ""
    only = "".join(f"; {factor} = {' or '.join(wanted)}" for factor, wanted in where.items())
    what = f"{metric.title} ({metric.name}{better})"
    return f"{what} of sweep {sweep.name}: mean ± {INTERVAL_NAME} over n seeds{only}."


def _left_out(sweep: Sweep) -> list[str]:
    lines = list(sweep.problems)
    if sweep.missing:
        shown = ", ".join(sweep.missing[:5]) + (", …" if len(sweep.missing) > 5 else "")
        lines.append(f"{len(sweep.missing)} unfinished trials are not in the table: {shown}")
    return lines


def _ratios(trials: pd.DataFrame, factors: Sequence[str]) -> dict[Cell, float]:
    """The trainable ratio of each cell that has exactly one."""
    if RATIO not in trials:
        return {}
    keys = [labels(trials, factor).to_numpy() for factor in factors]
    spread = trials[RATIO].groupby(keys).agg(["min", "max"])
    same = spread[spread["max"] - spread["min"] <= 1e-12]
    return {key if isinstance(key, tuple) else (key,): float(value) for key, value in same["min"].items()}


def _decimals(summaries: Sequence[Summary]) -> int:
    """Decimals that show two digits of the typical half interval, or four digits of the mean without one."""
    halves = sorted(item.half for item in summaries if item.half == item.half and item.half > 0)
    if halves:
        return min(8, max(0, 1 - math.floor(math.log10(halves[len(halves) // 2]))))
    means = [abs(item.mean) for item in summaries if item.n and item.mean]
    return min(8, max(0, 3 - math.floor(math.log10(max(means))))) if means else 3
