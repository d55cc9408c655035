"""One metric over rows × columns as a table for a paper: means with intervals, n, marks, footnotes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.columns import RATIO, SEED, Column, describe
from analysis.errors import BadRequestError
from analysis.sources.sweep import Sweep
from analysis.statistics.cells import observe
from analysis.statistics.compare import Comparison, against, compare, first, ranking
from analysis.statistics.confidence import Generalise
from analysis.statistics.earlier import with_earlier
from analysis.statistics.intervals import Summary
from analysis.statistics.levels import REFERENCES, is_adapter, labels, select
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.questions import deciding
from analysis.tables import wording
from analysis.tables.numbers import HUGE, TINY, varies
from analysis.tables.sentences import caveat, note_text

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
    column "". ``spanning`` names the rows (full, none) whose one entry holds for every column. ``comparisons`` are
    those with the baseline, where one was named. ``caveats`` are the notes that weaken the conclusions.
    """

    metric: Column
    rows: Column
    columns: Column | None
    row_levels: tuple[str, ...]
    column_levels: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    comparisons: tuple[Comparison, ...]
    spanning: tuple[str, ...]
    decimals: int
    caption: str
    notes: tuple[str, ...]
    caveats: tuple[str, ...]


def build(  # noqa: PLR0913 (what one table is asked)
    sweep: Sweep,
    rows: str,
    columns: str | None = None,
    metric: str | None = None,
    baseline: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
    generalise: Generalise = "both",
    margin: float | None = None,
) -> Table:
    """Build the table of ``metric``, by default the one that decides (see ``analysis.statistics.questions.deciding``).

    ``baseline``: a level of ``rows`` (each cell is compared inside its own column) or a row and a
    column level (one cell for all). ``generalise``: what verdicts should hold for besides what was tried. ``margin``: the
    largest difference that does not matter, for *equivalent*.
    Raises BadRequestError for unknown names and for questions the trials cannot answer.
    """
    if SEED in (rows, columns):
        raise BadRequestError("the seed is what the table averages over; choose another factor")
    trials = select(sweep.trials, where or {})
    factors = (rows,) if columns is None else (rows, columns)
    metric = metric or deciding(trials, sweep.metrics)
    observations = observe(trials, factors, metric, sweep.metrics, generalise)
    observations = with_earlier(observations, trials, sweep.history)
    if not observations.filled:
        raise BadRequestError(f"no finished trial has a value of {metric}")
    comparisons = compare(observations, against(observations, tuple(baseline)), margin) if baseline else []
    ranked = ranking(observations, observations.cells)
    best = first(ranked)
    entries = _entries(observations, comparisons, best, _ratios(trials, factors))
    both = columns is not None and is_adapter(rows) and is_adapter(columns)
    column_levels = ONE_COLUMN if columns is None else tuple(observations.levels[columns])
    return Table(
        metric=observations.metric,
        rows=describe(rows),
        columns=describe(columns) if columns else None,
        row_levels=tuple(observations.levels[rows]),
        column_levels=tuple(level for level in column_levels if not (both and level in REFERENCES)),
        entries=entries,
        comparisons=tuple(comparisons),
        spanning=tuple(level for level in observations.levels[rows] if both and level in REFERENCES),
        decimals=_decimals([entry.summary for entry in entries.values()]),
        caption=wording.caption(observations.metric, sweep.name, where or {}),
        notes=(
            *map(note_text, observations.notes),
            *filter(None, [wording.bottleneck_text(observations, comparisons or ranked)]),
            *([wording.marks_text(baseline, comparisons)] if baseline else []),
            *filter(None, [wording.equivalent_text(comparisons)]),
            *wording.qualified_texts(comparisons),
            *([wording.bold_text(ranked, best is not None)] if observations.metric.better else []),
            *sweep.problems,
            *([wording.unfinished_text(sweep.missing)] if sweep.missing else []),
        ),
        caveats=tuple(caveat(note) for note in observations.notes if note.is_warning),
    )


def _entries(
    observations: Observations, comparisons: Sequence[Comparison], best: Cell | None, ratios: Mapping[Cell, float]
) -> dict[tuple[str, str], Entry]:
    marked = {item.cell for item in comparisons if item.significant}
    counts = observations.counts.to_dict("index")
    return {
        (cell[0], cell[1] if len(cell) > 1 else ""): Entry(
            summary=observations.summary(cell),
            trials=int(counts[cell]["trials"]),
            lost=int(counts[cell]["diverged"] + counts[cell]["failed"]),
            best=cell == best,
            mark="*" if cell in marked else "",
            ratio=ratios.get(cell, math.nan),
            rate=observations.rates.get(cell, ""),
        )
        for cell in observations.cells
    }


def _ratios(trials: pd.DataFrame, factors: Sequence[str]) -> dict[Cell, float]:
    """The trainable ratio of each cell that has exactly one."""
    if RATIO not in trials:
        return {}
    keys = [labels(trials, factor).to_numpy() for factor in factors]
    spread = trials[RATIO].groupby(keys).agg(["min", "max"])
    same = spread[spread["max"] - spread["min"] <= 1e-12]
    return {key if isinstance(key, tuple) else (key,): float(value) for key, value in same["min"].items()}


def _decimals(summaries: Sequence[Summary]) -> int:
    """Decimals of the means that have no interval: as of the typical one, or four digits where none has one."""
    everyday = [item for item in summaries if item.n and TINY <= abs(item.mean) < HUGE]
    halves = sorted(item.half for item in everyday if varies(item))
    if halves:
        return min(8, max(0, 1 - math.floor(math.log10(halves[len(halves) // 2]))))
    means = [abs(item.mean) for item in everyday]
    return min(8, max(0, 3 - math.floor(math.log10(max(means))))) if means else 3
