"""Whether a difference between two cells depends on a factor that was averaged over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from scipy import stats

from analysis.columns import SEED
from analysis.statistics.crossed import tested
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
    """Differences of one pair (level, seed), with the p of each level's contrast to the mean of the others.

    ``alone``: the p of the difference at each level by itself.
    """

    pair: int
    factor: str
    levels: tuple[str, ...]
    values: np.ndarray
    ps: tuple[float, ...]
    alone: tuple[float, ...]


def dependences(observations: Observations, pairs: Sequence[tuple[Cell, Cell]]) -> list[Dependence | None]:
    """For each pair the factor on which its difference depends most, None where none is found.

    At each seed the difference at one level is compared with its mean over the other levels: a paired t test a
    level, Holm-corrected over all levels, factors and pairs. What is found must hold for new examples too, where these
    are asked about: then the p of a contrast is the larger of ``crossed.tested``.
    """
    found: list[Dependence | None] = [None] * len(pairs)
    contrasts = [one for factor in observations.averaged for one in _contrasts(observations, factor, pairs)]
    if observations.scored is not None and observations.generalise != "seeds":
        over_seeds = iter(holm([p for one in contrasts for p in one.ps]))
        ps = [[next(over_seeds) for _ in one.ps] for one in contrasts]
        contrasts = [
            _over_examples(observations, one, pairs[one.pair])
            if observations.generalise == "examples" or np.nanmin([math.inf, *mine]) < ALPHA  # for both p only grows
            else one
            for one, mine in zip(contrasts, ps, strict=True)
        ]
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
    p = float(np.nan_to_num(one.alone, nan=1.0).max()) if same_way else 1.0
    return Dependence(one.factor, tuple(zip(one.levels, map(float, means), strict=True)), p)


def _over_examples(observations: Observations, one: _Contrast, pair: tuple[Cell, Cell]) -> _Contrast:
    """The same contrast, tested for new examples as well."""
    assert observations.scored is not None
    factors = list(observations.factors)
    keys = [*factors, one.factor, SEED]
    mine = pd.MultiIndex.from_frame(observations.detail[factors]).isin([*pair])
    detail = observations.detail[mine & observations.detail["value"].notna()]
    rows = detail[keys].drop_duplicates(ignore_index=True)
    scores = observations.scored.of(rows, detail, keys)
    seeds = observations.cell(pair[0]).index.intersection(observations.cell(pair[1]).index)
    cells: dict[Cell, dict[str, np.ndarray]] = {cell: {} for cell in pair}
    at = seeds.get_indexer(pd.Index(rows[SEED]))
    for key, where in rows.groupby([*factors, one.factor], sort=False).indices.items():
        *cell, level = cast(tuple[str, ...], key)
        shared = where[at[where] >= 0]
        own = cells[tuple(cell)][level] = np.full((len(seeds), scores.shape[1]), math.nan)
        own[at[shared]] = scores[shared]
    d = _at(cells[pair[0]], one.levels) - _at(cells[pair[1]], one.levels)
    apart = _apart(d)

    def ps(each: np.ndarray) -> tuple[float, ...]:
        return tuple(tested(of_level.mean(axis=1), of_level, observations.generalise).p for of_level in each)

    return replace(one, ps=ps(apart), alone=ps(d))


def _contrasts(observations: Observations, factor: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[_Contrast]:
    cells, known, seeds = _by_level(observations, factor)
    contrasts = []
    for index, (cell, baseline) in enumerate(pairs):
        left, right = cells.get(cell, {}), cells.get(baseline, {})
        shared = observations.cell(cell).index.intersection(observations.cell(baseline).index)
        levels = [level for level in known if level in left or level in right]
        if len(levels) < 2 or len(shared) < ENOUGH_SEEDS:
            continue
        values = (_at(left, levels) - _at(right, levels))[:, seeds.get_indexer(shared)]
        if np.isfinite(values).all():
            ps, alone = (tuple(map(float, t_test(each))) for each in (_apart(values), values))
            contrasts.append(_Contrast(index, factor, tuple(levels), values, ps, alone))
    return contrasts


def _apart(values: np.ndarray) -> np.ndarray:
    """Each level's values (level, seed, …) minus the mean of the others; of two levels only one, since the other mirrors it."""
    apart: np.ndarray = (values - values.mean(axis=0)) * len(values) / (len(values) - 1)
    return apart[:1] if len(values) == 2 else apart


def _by_level(observations: Observations, factor: str) -> tuple[dict[Cell, dict[str, np.ndarray]], list[str], pd.Index]:
    """The values of each cell by level of ``factor``, an array over all seeds; the levels; and the seeds."""
    keys = [*observations.factors, factor]
    table = observations.detail.groupby([*keys, SEED], sort=False)["value"].mean().unstack(SEED)
    cells: dict[Cell, dict[str, np.ndarray]] = {}
    for (*cell, level), row in zip(table.index, table.to_numpy(dtype=float), strict=True):
        cells.setdefault(tuple(cell), {})[str(level)] = row
    levels = ordered(level for by_level in cells.values() for level in by_level)
    return cells, [level for level in levels if level not in REFERENCES], table.columns


def _at(by_level: dict[str, np.ndarray], levels: Sequence[str]) -> np.ndarray:
    """The values at ``levels``; a reference, which has no such setting, has one value for all of them."""
    reference = next((by_level[name] for name in REFERENCES if len(by_level) == 1 and name in by_level), None)
    missing = np.full_like(next(iter(by_level.values())), math.nan) if reference is None else reference
    return np.stack([by_level.get(level, missing) for level in levels])


def t_test(values: np.ndarray) -> np.ndarray:
    """Two-sided p of a one-sample t test of each row; NaN where a row does not vary."""
    n = values.shape[1]
    spread = values.std(axis=1, ddof=1)
    still = spread <= 1e-9 * np.abs(values).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = values.mean(axis=1) / (spread / math.sqrt(n))
    p: np.ndarray = np.where(still, math.nan, 2 * stats.t.sf(np.abs(t), n - 1))
    return p
