"""The best of many cells, chosen on one half of the seeds and valued on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.statistics.intervals import Summary, summarise
from analysis.statistics.levels import ordered
from analysis.statistics.observations import Cell, Observations


@dataclass(frozen=True)
class Best:
    """``cell`` has the best mean over all seeds; ``summary`` is the value of choosing, free of that choice.

    ``chosen`` are the cells that the two halves chose. ``peeked``: too few seeds for two halves, so that the value
    is the cell's own mean, and optimistic.
    """

    cell: Cell
    chosen: tuple[Cell, ...]
    summary: Summary
    peeked: bool


def best_of(observations: Observations, cells: Sequence[Cell]) -> Best:
    """Each half of the seeds (every second one) is valued at the cell that is best on the other half."""
    means = {cell: observations.summary(cell).mean * observations.metric.sign for cell in cells}
    overall = min(means, key=lambda cell: means[cell])
    seeds = ordered(str(seed) for cell in cells for seed in observations.cell(cell).index)
    halves = (seeds[::2], seeds[1::2])
    chosen = [_best_on(observations, cells, half) for half in halves]
    first, second = chosen
    if first is None or second is None:
        return Best(overall, (overall,), observations.summary(overall), True)
    values = [
        float(value)
        for cell, other in ((second, halves[0]), (first, halves[1]))
        for value in observations.cell(cell).reindex(other).dropna()
    ]
    return Best(overall, tuple(dict.fromkeys((first, second))), summarise(values), False)


def _best_on(observations: Observations, cells: Sequence[Cell], seeds: Sequence[str]) -> Cell | None:
    means = {cell: observations.cell(cell).reindex(list(seeds)).mean() * observations.metric.sign for cell in cells}
    valued = {cell: value for cell, value in means.items() if not math.isnan(value)}
    return min(valued, key=lambda cell: valued[cell]) if valued else None
