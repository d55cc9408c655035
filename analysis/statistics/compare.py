"""Compares cells with a baseline: paired by seed, corrected for the number of comparisons, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.errors import BadRequestError, unknown
from analysis.statistics.cells import Cell, Observations
from analysis.statistics.intervals import (
    ALPHA,
    ENOUGH_SEEDS,
    Paired,
    Summary,
    detectable,
    holm,
    paired,
    smallest_rank_p,
)
from analysis.statistics.levels import REFERENCES

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
    found = []
    for cell, baseline in pairs:
        left, right = observations.cell(cell), observations.cell(baseline)
        shared = left.index.intersection(right.index)
        found.append(paired(left[shared].to_numpy() - right[shared].to_numpy()))
    tested = [item.p if item.n >= ENOUGH_SEEDS else float("nan") for item in found]
    family = max(1, sum(p == p for p in tested))
    return [
        Comparison(
            cell,
            baseline,
            item,
            corrected,
            detectable(item.std, item.n, family),
            _verdict(item, corrected, observations.metric.better),
        )
        for (cell, baseline), item, corrected in zip(pairs, found, holm(tested), strict=True)
    ]


def _verdict(difference: Paired, p: float, better: str | None) -> Verdict:
    if difference.n < ENOUGH_SEEDS:
        return "too few seeds"
    if p != p:
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


def number(value: float, signed: bool = False) -> str:
    """Three significant digits, never an exponent for a number of everyday size."""
    if value != value:
        return "–"
    style = ".0f" if 1000 <= abs(value) < 1e7 else ".3g"
    text = f"{value:+{style}}" if signed else f"{value:{style}}"
    return text.replace("-", "−") if signed else text


def p_text(p: float) -> str:
    """A p value to three digits, ``<0.001`` below that: smaller ones say nothing more at a few seeds."""
    return "<0.001" if p < 0.001 else f"={number(p)}"


def mean_text(summary: Summary) -> str:
    """``1.316 ± 0.021 (n=5)``: as many decimals as give the half interval two digits."""
    if summary.n < 2 or not summary.half > 0:
        return f"{number(summary.mean)} (n={summary.n})"
    decimals = min(8, max(0, 1 - math.floor(math.log10(summary.half))))
    return f"{summary.mean:.{decimals}f} ± {summary.half:.{decimals}f} (n={summary.n})"


def sentence(item: Comparison, unit: str = "") -> str:
    """The verdict in words: ``not distinguishable (could have seen ≥ 0.012)``."""
    unit = f" {unit}" if unit else ""
    if item.verdict == "not distinguishable":
        return f"not distinguishable (could have seen ≥ {number(item.detectable)}{unit})"
    if item.verdict == "too few seeds":
        return f"nothing can be concluded from {item.difference.n} shared seed" + (
            "s" if item.difference.n != 1 else ""
        )
    if item.verdict == "no variation":
        same = item.difference.mean == 0
        return "identical at every seed" if same else "the same difference at every seed: the seeds vary nothing"
    return item.verdict


def verdict_text(observations: Observations, baseline: Cell, comparisons: Sequence[Comparison]) -> str:
    """About ten lines for a person: the baseline, one line a cell, and how the numbers were made."""
    metric = observations.metric
    base = observations.summary(baseline)
    unit = f" {metric.unit}" if metric.unit else ""
    better = f" ({metric.better} is better)" if metric.better else ""
    named_factors = ", ".join(observations.factors)
    lines = [f"{metric.name}{better} by {named_factors}, against {'/'.join(baseline)} = {mean_text(base)}{unit}"]
    width = max((len("/".join(item.cell)) for item in comparisons), default=0)
    for item in comparisons:
        d = item.difference
        p = f", p{p_text(item.p_holm)}, d={number(d.effect, True)}" if item.p_holm == item.p_holm else ""
        interval = f" [{number(d.low, True)}, {number(d.high, True)}]" if d.n > 1 else ""
        lines.append(
            f"  {'/'.join(item.cell):<{width}}  {number(d.mean, True)}{interval} (n={d.n}{p}): "
            f"{sentence(item, metric.unit)}"
        )
    n = max((item.difference.n for item in comparisons), default=0)
    lines.append(
        f"Paired differences at equal seeds with 95% t intervals; d: in standard deviations of the differences.\n"
        f"Paired t test, Holm-corrected over "
        f"{len(comparisons)} comparison{'s' if len(comparisons) != 1 else ''}."
    )
    if n >= ENOUGH_SEEDS and smallest_rank_p(n) >= ALPHA:
        lines.append(f"A rank or sign-flip test could not go below p={number(smallest_rank_p(n))} at {n} seeds.")
    return "\n".join([*lines, *observations.notes])
