"""Compares cells with a baseline: paired by seed, corrected for the number of comparisons, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.errors import BadRequestError, unknown
from analysis.statistics.cautions import refusals
from analysis.statistics.interactions import Dependence, dependences
from analysis.statistics.intervals import (
    ALPHA,
    ENOUGH_SEEDS,
    Paired,
    Unpaired,
    detectable,
    holm,
    paired,
    unpaired,
)
from analysis.statistics.levels import REFERENCES
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.settings import Difference
from sweep.metrics import instead_of_pack

Verdict = Literal[
    "better",
    "worse",
    "different",
    "better where it converges",
    "worse where the baseline converges",
    "depends",
    "not distinguishable",
    "refused",
    "no shared seed",
    "too few seeds",
    "no variation",
]


@dataclass(frozen=True)
class Lost:
    """How many of the ``seeds`` of a cell ``diverged``."""

    diverged: int
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """One cell against its baseline. ``p_holm`` is corrected over all comparisons made with it.

    ``by_seed`` are the differences that were tested. ``also_differ`` is what else differs between the cells: it
    leaves no verdict; ``environments`` is what differs in where they were trained. ``dependence``: the
    differences by level of a factor that was averaged over and that matters for them. ``lost`` and ``lost_baseline``
    count diverged seeds. ``unpaired`` stands for the difference where the cells share no seed.
    """

    cell: Cell
    baseline: Cell
    difference: Paired
    p_holm: float
    detectable: float
    verdict: Verdict
    by_seed: tuple[float, ...] = ()
    also_differ: tuple[Difference, ...] = ()
    environments: tuple[Difference, ...] = ()
    dependence: Dependence | None = None
    lost: Lost = Lost(0, 0)
    lost_baseline: Lost = Lost(0, 0)
    unpaired: Unpaired | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05 at enough seeds, and nothing takes from the verdict."""
        return self.verdict in ("better", "worse", "different")


def compare(observations: Observations, pairs: Sequence[tuple[Cell, Cell]]) -> list[Comparison]:
    """Compare each (cell, baseline) pair over the seeds that both have; the pairs are one Holm family.

    A pair that differs in more than is asked is not tested. Where a difference depends on a factor that was averaged
    over, each of its levels must be significant. Where the better side lost diverged seeds, the difference must
    also be significant with each of them counted as the worst.
    """
    refused = [refusals(observations, cell, baseline) for cell, baseline in pairs]
    values = [_paired_values(observations, *pair) for pair in pairs]
    tests = [paired(row) for row in values]
    fair = [index for index, (also, _) in enumerate(refused) if not also]
    depends = dict(zip(fair, dependences(observations, [pairs[index] for index in fair]), strict=True))
    ps = [
        math.nan if also or test.n < ENOUGH_SEEDS else _at_every_level(test.p, depends[index])
        for index, ((also, _), test) in enumerate(zip(refused, tests, strict=True))
    ]
    safe = [_with_the_lost(observations, *pair, test, p) for pair, test, p in zip(pairs, tests, ps, strict=True)]
    family = max(1, sum(not math.isnan(p) for p in ps))
    found = []
    for index, ((cell, baseline), test, p, p_safe) in enumerate(zip(pairs, tests, holm(ps), holm(safe), strict=True)):
        also, environments = refused[index]
        dependence = depends.get(index)
        verdict = "refused" if also else _verdict(test, p, p_safe, dependence, observations.metric.better)
        found.append(
            Comparison(
                cell,
                baseline,
                test,
                p,
                detectable(test.std, test.n, family),
                verdict,
                tuple(map(float, values[index])),
                tuple(also),
                tuple(environments),
                dependence,
                _lost(observations, cell),
                _lost(observations, baseline),
                None if test.n else unpaired(observations.cell(cell), observations.cell(baseline)),
            )
        )
    return found


def _paired_values(observations: Observations, cell: Cell, baseline: Cell) -> np.ndarray:
    left, right = observations.cell(cell), observations.cell(baseline)
    shared = left.index.intersection(right.index)
    difference: np.ndarray = left[shared].to_numpy() - right[shared].to_numpy()
    return difference


def _at_every_level(p: float, dependence: Dependence | None) -> float:
    return p if dependence is None or math.isnan(p) else max(p, dependence.p)


def _with_the_lost(observations: Observations, cell: Cell, baseline: Cell, test: Paired, p: float) -> float:
    """``p``, or a larger one where the better side has diverged seeds and these count as the worst.

    A seed at which only the better side diverged counts against it by the largest difference of the pair, and by more
    where the worst value of any cell is further away; where both diverged the difference is 0.
    """
    metric = observations.metric
    diverged = {side: observations.diverged.get(side, frozenset()) for side in (cell, baseline)}
    winner, loser = (cell, baseline) if test.mean * metric.sign < 0 else (baseline, cell)
    if metric.better is None or math.isnan(p) or not diverged[winner]:
        return p
    ahead, behind = (observations.cell(side) * metric.sign for side in (winner, loser))
    shared = ahead.index.intersection(behind.index)
    kept = ahead[shared] - behind[shared]
    worst, largest = float((observations.values["value"] * metric.sign).max()), float(kept.abs().max())
    lost = [max(worst - value, largest) for seed, value in behind.items() if seed in diverged[winner]]
    both = [0.0] * len(diverged[winner] & diverged[loser])
    with_lost = paired([*kept, *lost, *both])
    return max(p, with_lost.p) if with_lost.mean < 0 and not math.isnan(with_lost.p) else 1.0


def _lost(observations: Observations, cell: Cell) -> Lost:
    diverged = observations.diverged.get(cell, frozenset())
    return Lost(len(diverged), len(diverged) + len(observations.cell(cell)))


def _verdict(difference: Paired, p: float, p_safe: float, dependence: Dependence | None, better: str | None) -> Verdict:
    if difference.n == 0:
        return "no shared seed"
    if difference.n < ENOUGH_SEEDS:
        return "too few seeds"
    if math.isnan(p):
        return "no variation"
    if p >= ALPHA:
        return "not distinguishable" if dependence is None else "depends"
    if better is None:
        return "different"
    if (difference.mean < 0) == (better == "lower"):
        return "better" if p_safe < ALPHA else "better where it converges"
    return "worse" if p_safe < ALPHA else "worse where the baseline converges"


def against(observations: Observations, baseline: Cell) -> list[tuple[Cell, Cell]]:
    """Every cell with values paired with ``baseline``.

    ``baseline`` names either one cell, or the level of the first factor only: then each cell is compared with
    that level at its own levels of the other factors, and a reference row (``full``) with every column.
    Raises BadRequestError when the baseline does not exist, and for a metric by which no trials are compared.
    """
    factors, metric = observations.factors, observations.metric
    if metric.of_pack:
        raise BadRequestError(
            f"{metric.name} is of the packs in which trials trained, and no trials are compared by it; "
            f"ask for {instead_of_pack(metric.name)}"
        )
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


def ranking(observations: Observations, cells: Sequence[Cell]) -> list[Comparison]:
    """The best of ``cells`` compared with each other one; empty where there is no best or no other.

    The untouched base (``none``) takes no part: it forgets nothing and costs nothing by definition.
    """
    means = {cell: observations.summary(cell) for cell in cells if "none" not in cell}
    filled = {cell: summary for cell, summary in means.items() if summary.n}
    if observations.metric.better is None or len(filled) < 2:
        return []
    best = min(filled, key=lambda cell: filled[cell].mean * observations.metric.sign)
    return compare(observations, [(best, cell) for cell in filled if cell != best])


def clear_best(observations: Observations, cells: Sequence[Cell]) -> Cell | None:
    """The best of ``cells`` when it is better than every other one by paired t tests, Holm-corrected, otherwise None."""
    return first(ranking(observations, cells))


def first(compared: Sequence[Comparison]) -> Cell | None:
    """The best cell of a ``ranking`` when it is better than every other one, otherwise None."""
    if compared and all(item.verdict == "better" for item in compared):
        return compared[0].cell
    return None
