"""Compares cells with a baseline: paired by seed, corrected for the number of comparisons, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from analysis.errors import BadRequestError, unknown
from analysis.statistics.cautions import refusals
from analysis.statistics.confidence import Generalise
from analysis.statistics.crossed import Layout, layout, tested
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
    "equivalent",
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
    count diverged seeds. ``unpaired`` stands for the difference where the cells share no seed. ``within``: the margin
    inside which the true difference was shown to lie. ``generalise``: what the verdict holds for besides what was tried;
    ``layout``: the mean squares of seeds and examples, where both are samples. ``family``: the number of comparisons.
    """

    cell: Cell
    baseline: Cell
    difference: Paired
    p_holm: float
    verdict: Verdict
    by_seed: tuple[float, ...] = ()
    also_differ: tuple[Difference, ...] = ()
    environments: tuple[Difference, ...] = ()
    dependence: Dependence | None = None
    lost: Lost = Lost(0, 0)
    lost_baseline: Lost = Lost(0, 0)
    unpaired: Unpaired | None = None
    within: float | None = None
    generalise: Generalise = "seeds"
    layout: Layout | None = None
    family: int = 1

    @cached_property
    def detectable(self) -> float:
        """The smallest true difference that would have been found with 80% power; NaN where nothing varies."""
        return max((detectable(error, self.family) for error in self.difference.errors), default=math.nan)

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05 at enough seeds, and nothing qualifies the verdict."""
        return self.verdict in ("better", "worse", "different")


def compare(
    observations: Observations, pairs: Sequence[tuple[Cell, Cell]], margin: float | None = None
) -> list[Comparison]:
    """Compare each (cell, baseline) pair over the seeds that both have; the pairs are one Holm family.

    A pair that differs in more than is asked is not tested. Where a difference depends on a factor that was averaged
    over, each of its levels must be significant. Where the better side lost diverged seeds, the difference must
    also be significant with each of them counted as the worst. ``margin``: cells are equivalent where two one-sided tests,
    Holm-corrected too, show that their true difference is smaller; never where one has lost seeds.
    Raises BadRequestError for a margin that is no positive number.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise BadRequestError(f"--margin {margin:g}: the largest difference that does not matter must be above 0")
    refused = [refusals(observations, cell, baseline) for cell, baseline in pairs]
    evidence = [_evidence(observations, *pair) for pair in pairs]
    fair = [index for index, (also, _) in enumerate(refused) if not also]
    depends = dict(zip(fair, dependences(observations, [pairs[index] for index in fair]), strict=True))
    ps = [
        math.nan if also or not one.enough else _at_every_level(one.test.p, depends[index])
        for index, ((also, _), one) in enumerate(zip(refused, evidence, strict=True))
    ]
    safe = [_with_the_lost(observations, *pair, one.test, p) for pair, one, p in zip(pairs, evidence, ps, strict=True)]
    family = max(1, sum(not math.isnan(p) for p in ps))
    lost = [(_lost(observations, cell), _lost(observations, baseline)) for cell, baseline in pairs]
    qualified = [bool(depends.get(index)) or any(side.diverged for side in lost[index]) for index in range(len(pairs))]
    outside = [
        math.nan if margin is None or math.isnan(p) else 1.0 if but else one.test.p_outside(margin)
        for p, but, one in zip(ps, qualified, evidence, strict=True)
    ]
    found = []
    corrected = zip(holm(ps), holm(safe), holm(outside), strict=True)
    for index, (p, p_safe, p_outside) in enumerate(corrected):
        (cell, baseline), one, (also, environments) = pairs[index], evidence[index], refused[index]
        within = margin if p_outside < ALPHA else None
        verdict = "refused" if also else _verdict(one, p, p_safe, depends[index], observations.metric.better, within)
        found.append(
            Comparison(
                cell,
                baseline,
                one.test,
                p,
                verdict,
                one.by_seed,
                tuple(also),
                tuple(environments),
                depends.get(index),
                *lost[index],
                None if one.test.n else unpaired(observations.cell(cell), observations.cell(baseline)),
                within,
                one.generalise,
                one.layout,
                family,
            )
        )
    return found


@dataclass(frozen=True)
class _Evidence:
    """The differences of one pair, tested; ``enough``: whether there are enough of them for a verdict."""

    by_seed: tuple[float, ...]
    test: Paired
    generalise: Generalise
    layout: Layout | None
    enough: bool


def _evidence(observations: Observations, cell: Cell, baseline: Cell) -> _Evidence:
    differences, d = observations.differences(cell, baseline)
    by_seed, n = tuple(map(float, differences)), len(differences)
    if d is None or observations.generalise == "seeds" or not n:
        return _Evidence(by_seed, paired(differences), "seeds", None, n >= ENOUGH_SEEDS)
    test = tested(differences, d, observations.generalise)
    if observations.generalise == "examples":
        return _Evidence(by_seed, test, "examples", None, True)
    return _Evidence(by_seed, test, "both", layout(d) if n > 1 else None, n >= ENOUGH_SEEDS)


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


def _verdict(
    one: _Evidence, p: float, p_safe: float, dependence: Dependence | None, better: str | None, within: float | None
) -> Verdict:
    if one.test.n == 0:
        return "no shared seed"
    if not one.enough:
        return "too few seeds"
    if math.isnan(p):
        return "no variation"
    if p >= ALPHA:
        return "depends" if dependence else "not distinguishable" if within is None else "equivalent"
    if better is None:
        return "different"
    if (one.test.mean < 0) == (better == "lower"):
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
            f"{metric.name} describes the packs in which trials trained, so no trials are compared by it; "
            f"use --metric {instead_of_pack(metric.name)}"
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


def first(compared: Sequence[Comparison]) -> Cell | None:
    """The best cell of a ``ranking`` when it is better than every other one, otherwise None."""
    if compared and all(item.verdict == "better" for item in compared):
        return compared[0].cell
    return None
