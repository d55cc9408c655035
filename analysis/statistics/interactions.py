"""Whether a difference between two cells depends on a factor that was averaged over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.columns import SEED
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, holm
from analysis.statistics.levels import REFERENCES, ordered
from analysis.statistics.observations import Cell, Observations


@dataclass(frozen=True)
class Dependence:
    """The mean paired difference at each level of ``factor``, where it depends on the level.

    ``p`` is the largest p of the levels where all their differences point the same way, otherwise 1: a verdict
    on the average then needs every level to be significant by itself.
    """

    factor: str
    differences: tuple[tuple[str, float], ...]
    p: float


@dataclass(frozen=True)
class _Contrast:
    """Differences of one pair (level, seed), with the p of each level's contrast to the mean of the others."""

    pair: int
    factor: str
    levels: tuple[str, ...]
    values: np.ndarray
    ps: tuple[float, ...]


def dependences(observations: Observations, pairs: Sequence[tuple[Cell, Cell]]) -> list[Dependence | None]:
    """For each pair the factor on which its difference depends most, None where none is found.

    At each seed the difference at one level is compared with its mean over the other levels: a paired t test a
    level, Holm-corrected over all levels, factors and pairs.
    """
    found: list[Dependence | None] = [None] * len(pairs)
    contrasts = [one for factor in observations.averaged for one in _contrasts(observations, factor, pairs)]
    adjusted = holm([p for one in contrasts for p in one.ps])
    smallest: dict[int, float] = {}
    start = 0
    for one in contrasts:
        mine = [p for p in adjusted[start : start + len(one.ps)] if not math.isnan(p)]
        start += len(one.ps)
        if mine and min(mine) < min(ALPHA, smallest.get(one.pair, math.inf)):
            smallest[one.pair] = min(mine)
            found[one.pair] = _dependence(one)
    return found


def _dependence(one: _Contrast) -> Dependence:
    means = one.values.mean(axis=1)
    same_way = bool((means > 0).all() or (means < 0).all())
    p = float(np.nan_to_num(t_test(one.values), nan=1.0).max()) if same_way else 1.0
    return Dependence(one.factor, tuple(zip(one.levels, map(float, means), strict=True)), p)


def _contrasts(observations: Observations, factor: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[_Contrast]:
    tables = _by_level(observations, factor)
    contrasts = []
    for index, (cell, baseline) in enumerate(pairs):
        left, right = tables.get(cell), tables.get(baseline)
        if left is None or right is None:
            continue
        seeds = observations.cell(cell).index.intersection(observations.cell(baseline).index)
        levels = [level for level in ordered({*left.index, *right.index}) if level not in REFERENCES]
        if len(levels) < 2 or len(seeds) < ENOUGH_SEEDS:
            continue
        values = _at(left, levels, seeds) - _at(right, levels, seeds)
        if np.isfinite(values).all():
            apart = (values - values.mean(axis=0)) * len(levels) / (len(levels) - 1)
            ps = t_test(apart[:1] if len(levels) == 2 else apart)
            contrasts.append(_Contrast(index, factor, tuple(levels), values, tuple(map(float, ps))))
    return contrasts


def _by_level(observations: Observations, factor: str) -> dict[Cell, pd.DataFrame]:
    """The values of each cell: one row a level of ``factor``, one column a seed."""
    keys = list(observations.factors)
    means = observations.detail.groupby([*keys, factor, SEED], sort=False)["value"].mean().unstack(SEED)
    table = means.reset_index(factor)
    cells = table.index if isinstance(table.index, pd.MultiIndex) else pd.MultiIndex.from_arrays([table.index])
    positions: dict[Cell, list[int]] = {}
    for position, cell in enumerate(cells):
        positions.setdefault(cell, []).append(position)
    return {cell: table.iloc[at].set_index(factor) for cell, at in positions.items()}


def _at(table: pd.DataFrame, levels: Sequence[str], seeds: pd.Index) -> np.ndarray:
    """The values at ``levels`` and ``seeds``; a reference, which has no such setting, has one value for all levels."""
    rows = [level if level in table.index else table.index[0] for level in levels]
    if not set(rows) <= {*levels, *REFERENCES}:
        return np.full((len(levels), len(seeds)), math.nan)
    return table.reindex(index=rows, columns=seeds).to_numpy(dtype=float)


def t_test(values: np.ndarray) -> np.ndarray:
    """Two-sided p of a one-sample t test of each row; NaN where a row does not vary."""
    n = values.shape[1]
    spread = values.std(axis=1, ddof=1)
    still = spread <= 1e-9 * np.abs(values).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = values.mean(axis=1) / (spread / math.sqrt(n))
    p: np.ndarray = np.where(still, math.nan, 2 * stats.t.sf(np.abs(t), n - 1))
    return p
