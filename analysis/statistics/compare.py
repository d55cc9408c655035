"""Compares cells with a baseline: paired by seed, corrected for the number of comparisons, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.errors import BadRequestError, unknown
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, Paired, detectable, holm, paired
from analysis.statistics.levels import REFERENCES
from analysis.statistics.observations import Cell, Observations

Verdict = Literal["better", "worse", "different", "not distinguishable", "too few seeds", "no variation"]


@dataclass(frozen=True)
class Comparison:
    """One cell against its baseline. ``p_holm`` is corrected over all comparisons made with it."""

    cell: Cell
    baseline: Cell
    difference: Paired
    p_holm: float
    detectable: float
    verdict: Verdict

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05 at enough seeds."""
        return self.verdict in ("better", "worse", "different")


def compare(observations: Observations, pairs: Sequence[tuple[Cell, Cell]]) -> list[Comparison]:
    """Compare each (cell, baseline) pair over the seeds that both have; the pairs are one Holm family."""
    differences = []
    for cell, baseline in pairs:
        left, right = observations.cell(cell), observations.cell(baseline)
        shared = left.index.intersection(right.index)
        differences.append(paired(left[shared].to_numpy() - right[shared].to_numpy()))
    tested = [item.p if item.n >= ENOUGH_SEEDS else math.nan for item in differences]
    family = max(1, sum(not math.isnan(p) for p in tested))
    return [
        Comparison(
            cell,
            baseline,
            item,
            corrected,
            detectable(item.std, item.n, family),
            _verdict(item, corrected, observations.metric.better),
        )
        for (cell, baseline), item, corrected in zip(pairs, differences, holm(tested), strict=True)
    ]


def _verdict(difference: Paired, p: float, better: str | None) -> Verdict:
    if difference.n < ENOUGH_SEEDS:
        return "too few seeds"
    if math.isnan(p):
        return "no variation"
    if p >= ALPHA:
        return "not distinguishable"
    if better is None:
        return "different"
    return "better" if (difference.mean < 0) == (better == "lower") else "worse"


def against(observations: Observations, baseline: Cell) -> list[tuple[Cell, Cell]]:
    """Every cell with values paired with ``baseline``.

    ``baseline`` names either one cell, or the level of the first factor only: then each cell is compared with
    that level at its own levels of the other factors, and a reference row (``full``) with every column.
    Raises BadRequestError when the baseline does not exist.
    """
    factors = observations.factors
    for factor, level in zip(factors, baseline, strict=False):
        if level not in observations.levels[factor]:
            raise unknown(f"baseline level of {factor}", level, observations.levels[factor])
    filled = observations.filled
    pairs = []
    for cell in filled:
        if len(baseline) == len(factors):
            target = baseline
        elif baseline[0] in REFERENCES:
            target = next((other for other in filled if other[0] == baseline[0]), cell)
        else:
            target = (baseline[0], *cell[1:])
        if target in filled and target != cell:
            pairs.append((cell, target))
    if not pairs:
        raise BadRequestError(f"nothing to compare with {'/'.join(baseline)}: it and another cell need finished trials")
    return pairs


def clear_best(observations: Observations, cells: Sequence[Cell]) -> Cell | None:
    """The best of ``cells`` when it is distinguishable from every other one, otherwise None.

    The best mean is compared with each other cell by paired t tests, Holm-corrected; all must be significant.
    The untouched base (``none``) takes no part: it forgets nothing and costs nothing by definition.
    """
    means = {cell: observations.summary(cell) for cell in cells if "none" not in cell}
    filled = {cell: summary for cell, summary in means.items() if summary.n}
    if observations.metric.better is None or len(filled) < 2:
        return None
    best = min(filled, key=lambda cell: filled[cell].mean * observations.metric.sign)
    verdicts = compare(observations, [(best, cell) for cell in filled if cell != best])
    return best if all(item.verdict == "better" for item in verdicts) else None
