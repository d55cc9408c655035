"""The best of many cells, chosen on one half of the seeds and evaluated on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.intervals import Summary, summarise
from analysis.statistics.levels import ordered
from analysis.statistics.observations import Cell, Observations


@dataclass(frozen=True)
class Best:
    """``cell`` has the best mean over all seeds; ``summary`` is its mean on seeds that did not choose it.

    ``chosen`` are the cells that the two halves chose. ``peeked``: too few seeds for two halves, so that the value
    is the cell's own mean, and optimistic.
    """

    cell: Cell
    chosen: tuple[Cell, ...]
    summary: Summary
    peeked: bool


def best_of(observations: Observations, cells: Sequence[Cell]) -> Best:
    """Each half of the seeds (every second one) gives its mean for the cell that is best on the other half."""
    table = pd.DataFrame({place: observations.cell(cell) for place, cell in enumerate(cells)})
    table = table.loc[ordered(table.index)] * observations.metric.sign
    overall = cells[int(np.nanargmin(table.mean().to_numpy()))]
    halves = (table.iloc[::2], table.iloc[1::2])
    if any(half.isna().to_numpy().all() for half in halves):
        return Best(overall, (overall,), observations.summary(overall), True)
    chosen = [int(np.nanargmin(half.mean().to_numpy())) for half in halves]
    values = pd.concat([halves[1][chosen[0]], halves[0][chosen[1]]]) * observations.metric.sign
    return Best(overall, tuple(dict.fromkeys(cells[place] for place in chosen)), summarise(values), False)
