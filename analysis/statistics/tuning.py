"""The best learning rate of a cell, chosen without looking at the seeds that are then reported.

Choosing the best of several rates on the very numbers that are reported makes every cell look better than it
is, and the noisier cell the more so. Here the seeds form two halves, and each half is reported at the rate that
was best on the other: no seed is wasted and none takes part in its own choice. Leaving out one seed at a time
would use more seeds for the choice, but all choices would then share their data and the test would be too bold
(``docs/statistics.md`` has the measured rates).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.statistics.levels import ordered

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tuned:
    """``values``: the reported value of each seed (NaN where its trial at the chosen rate did not finish).

    ``usual``: the rate chosen most often (NaN where every one diverged). ``edge``: whether that is the lowest
    or highest one tried. ``peeked``: a single seed, so rate and value come from the same trial.
    """

    values: dict[str, float]
    usual: float
    edge: bool
    peeked: bool


def choose(group: pd.DataFrame) -> Tuned:
    """Pick a rate for each seed of one cell from the other half: seeds in order, every second one.

    ``group`` has one row a trial: ``rate`` (number), ``seed``, ``value`` (to report), ``score`` (to minimise;
    +inf for a diverged trial, so that a rate which diverges in the other half is not chosen; NaN for a
    trial that says nothing, which is ignored).
    """
    seeds, row_of = np.unique(group["seed"].to_numpy(dtype=str), return_inverse=True)
    rates, column_of = np.unique(group["rate"].to_numpy(dtype=float), return_inverse=True)
    table = np.full((len(seeds), len(rates)), np.nan)
    matrix = table.copy()
    table[row_of, column_of] = group["value"].to_numpy(dtype=float)
    matrix[row_of, column_of] = group["score"].to_numpy(dtype=float)
    order = [ordered(seeds).index(seed) for seed in seeds]
    half = np.array(order) % 2
    reported: dict[str, float] = {}
    chosen: list[float] = []
    for row, seed in enumerate(seeds):
        others = matrix[half != half[row]] if len(seeds) > 1 else matrix
        seen = ~np.isnan(others)
        means = np.where(seen, others, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        means[~seen.any(axis=0)] = np.inf
        if not np.isfinite(means).any():
            reported[str(seed)] = np.nan
            continue
        best = int(np.argmin(means))
        chosen.append(float(rates[best]))
        reported[str(seed)] = float(table[row, best])
    usual = max(sorted(set(chosen)), key=chosen.count) if chosen else np.nan
    edge = len(rates) > 1 and usual in (rates.min(), rates.max())
    return Tuned(reported, usual, edge, len(matrix) == 1)
