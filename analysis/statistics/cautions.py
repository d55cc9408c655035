"""What a reader must know before the cells are compared: what else differs, which seeds, and which values stand out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.columns import COST, SIZE
from analysis.statistics.intervals import mean
from analysis.statistics.levels import REFERENCES, labels
from analysis.statistics.notes import Note, info, warning
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.settings import ENVIRONMENT, Difference, differences

OUTLIER = 0.01
"""A seed is named where its Bonferroni-corrected p, over all seeds of all cells, is below this."""
SEEDS_FOR_AN_OUTLIER = 4
FINEST = 1e-3
"""Relative to the mean of the other seeds: a smaller spread of theirs counts as this."""
MOST_CELLS = 60
"""Cells up to which every pair is looked at; with more, each is compared with the first."""
SOURCE = ("eval/source_", "test/source_")
"""Prefixes of what is forgotten: nearly every trained cell is worse there than the untouched base."""


def notes(observations: Observations, trials: pd.DataFrame) -> list[Note]:
    """Facts about the cells that concern their comparison; ``trials`` are those with a value."""
    found = [*_what_differs(observations), *_seeds(observations), *_outliers(observations)]
    if observations.together is not None and observations.metric.tuned_on is not None:
        found.append(info("together", moves=observations.together))
    if worse := _worse_than_the_base(observations, trials):
        found.append(warning("worse than the base", cells=["/".join(cell) for cell in worse]))
    return found


def _pairs(observations: Observations) -> list[tuple[Cell, Cell]]:
    filled = observations.filled
    if len(filled) <= MOST_CELLS:
        return list(combinations(filled, 2))
    return [(filled[0], cell) for cell in filled[1:]]


def _what_differs(observations: Observations) -> list[Note]:
    """Every setting and every part of the environment in which two cells differ besides what was asked."""
    if not observations.settings:
        return []
    settings: dict[str, dict[str, str]] = {}
    for cell, other in _pairs(observations):
        for item in differences(observations.settings, observations.factors, cell, other):
            levels = settings.setdefault(item.name, {})
            levels.setdefault("/".join(cell), item.cell)
            levels.setdefault("/".join(other), item.baseline)
    apart = {True: {}, False: {}}  # type: dict[bool, dict[str, dict[str, str]]]
    for name, levels in settings.items():
        apart[weakens_only(name)][name] = levels
    found = [warning("also differ", factors=observations.factors, settings=apart[False])] if apart[False] else []
    return found + ([warning("environments", settings=apart[True])] if apart[True] else [])


def weakens_only(name: str) -> bool:
    """Whether a difference in ``name`` is a warning beside a verdict; any other leaves no verdict."""
    return name.startswith(ENVIRONMENT) and not name.endswith(".base")


def refusals(observations: Observations, cell: Cell, baseline: Cell) -> tuple[list[Difference], list[Difference]]:
    """What leaves two cells without a verdict, and what is only a warning beside it."""
    found = differences(observations.settings, observations.factors, cell, baseline)
    return [item for item in found if not weakens_only(item.name)], [item for item in found if weakens_only(item.name)]


def _seeds(observations: Observations) -> list[Note]:
    """Cells without a seed in common; and cells on different seeds, with their difference at the seeds they share."""
    seeds = {cell: frozenset(observations.cell(cell).index) for cell in observations.filled}
    sets = dict.fromkeys(seeds.values())
    if len(sets) < 2:
        return []
    if any(not one & other for one, other in combinations(sets, 2)):
        return [warning("no shared seed")]
    most = max(seeds, key=lambda cell: (len(seeds[cell]), "none" not in cell))
    counts = {"/".join(cell): len(mine) for cell, mine in seeds.items()}
    shared = []
    for cell, mine in seeds.items():
        if mine != seeds[most]:
            at = sorted(mine & seeds[most])
            difference = mean((observations.cell(cell)[at] - observations.cell(most)[at]).to_numpy())
            shared.append(("/".join(cell), len(at), difference))
    return [warning("different seeds", counts=counts, reference="/".join(most), shared=shared)]


def _outliers(observations: Observations) -> list[Note]:
    """Seeds that lie far from the others of their cell: externally studentised, Bonferroni-corrected."""
    cells = {cell: observations.cell(cell) for cell in observations.filled}
    tested = {cell: values for cell, values in cells.items() if len(values) >= SEEDS_FOR_AN_OUTLIER}
    if observations.metric.name.startswith((COST, SIZE)) or not tested:
        return []
    level = OUTLIER / sum(map(len, tested.values()))
    found = []
    for cell, values in tested.items():
        x = values.to_numpy(dtype=float)
        n = len(x)
        others = (x.sum() - x) / (n - 1)
        squares = ((x - x.mean()) ** 2).sum() - (x - x.mean()) ** 2 * n / (n - 1)
        spread = np.sqrt(np.maximum(squares, 0.0) / (n - 2))
        scale = np.maximum(spread, FINEST * np.abs(others)) * np.sqrt(n / (n - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(np.abs(x - others) / scale, n - 2)
        found += [("/".join(cell), str(values.index[i]), float(x[i])) for i in map(int, np.flatnonzero(p < level))]
    return [warning("outlier", seeds=found)] if found else []


def _worse_than_the_base(observations: Observations, trials: pd.DataFrame) -> list[Cell]:
    """Trained cells whose mean is worse than that of the untouched base on the same trials' seeds."""
    metric = observations.metric
    if metric.better is None or metric.tuned_on is None or metric.name.startswith(SOURCE):
        return []
    name = metric.name.replace("/", "/base_", 1)
    trained = [cell for cell in observations.filled if "none" not in cell]
    if name != metric.name and name in trials and trials[name].notna().any():
        keys = [labels(trials, factor).to_numpy() for factor in observations.factors]
        bases = {
            key if isinstance(key, tuple) else (str(key),): float(value)
            for key, value in trials[name].groupby(keys).mean().items()
        }
    else:
        untouched = [cell for cell in observations.filled if cell[0] in REFERENCES and "none" in cell]
        if not untouched:
            return []
        bases = dict.fromkeys(trained, observations.summary(untouched[0]).mean)
    return [
        cell for cell in trained if cell in bases and (observations.summary(cell).mean - bases[cell]) * metric.sign > 0
    ]
