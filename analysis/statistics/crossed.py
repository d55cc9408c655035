"""Tests of a difference that should hold for other examples too: seeds and held-out examples as crossed random effects.

Every trial is scored on the same examples, so a difference of two cells is a two-way layout d[s, e] of n seeds and m
examples: d = δ + a_s + b_e + c_se. The t test over seeds takes b as fixed. With both as samples (Clark 1973; Westfall, Kenny
and Judd 2014), from the layout's mean squares

    Var(mean) = (MS_s + MS_e − MS_se) / (n m),    freedom = (MS_s + MS_e − MS_se)² / Σ MS_i² / f_i    (Satterthwaite)

and never below max(MS_s, MS_e) / (n m). Few seeds and many examples make Satterthwaite's tail too light, and Holm's
correction lives in the tail: a statement must hold under the error over seeds as well (``docs/statistics.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from analysis.statistics.confidence import Generalise
from analysis.statistics.intervals import Error, Paired, paired, under

MOST_SEEDS, MOST_EXAMPLES = 100, 100_000
"""No larger study is proposed."""


@dataclass(frozen=True)
class Layout:
    """The mean squares of differences d (n seeds, m examples): of ``seeds``, of ``examples``, and of ``both`` (residual)."""

    n: int
    m: int
    seeds: float
    examples: float
    both: float

    @property
    def error(self) -> Error:
        """The standard error of the mean difference for new seeds and new examples."""
        variance = self.seeds + self.examples - self.both
        if variance < max(self.seeds, self.examples):
            variance, freedom = max((self.seeds, self.n - 1.0), (self.examples, self.m - 1.0))
        else:
            parts = (self.seeds**2 / (self.n - 1), self.examples**2 / (self.m - 1))
            freedom = variance**2 / (sum(parts) + self.both**2 / ((self.n - 1) * (self.m - 1)))
        return Error(math.sqrt(variance / (self.n * self.m)), freedom)

    @property
    def half(self) -> float:
        """Half the width of the interval: the wider of that for seeds alone and that for both."""
        over_seeds = Error(math.sqrt(self.seeds / (self.n * self.m)), self.n - 1)
        return max(over_seeds.half, self.error.half)

    def resized(self, n: int, m: int) -> Layout:
        """What is expected of ``n`` seeds and ``m`` examples with the same components of variance."""
        of_seeds, of_examples = max(0.0, self.seeds - self.both) / self.m, max(0.0, self.examples - self.both) / self.n
        return Layout(n, m, self.both + m * of_seeds, self.both + n * of_examples, self.both)


def layout(d: np.ndarray) -> Layout:
    """The mean squares of ``d`` (n seeds, m examples), both at least 2."""
    n, m = d.shape
    mean, rows, columns = d.mean(), d.mean(axis=1), d.mean(axis=0)
    of_rows, of_columns = m * ((rows - mean) ** 2).sum(), n * ((columns - mean) ** 2).sum()
    rest = ((d - rows[:, None] - columns + mean) ** 2).sum()
    return Layout(n, m, of_rows / (n - 1), of_columns / (m - 1), rest / ((n - 1) * (m - 1)))


def tested(differences: np.ndarray, d: np.ndarray, generalise: Generalise) -> Paired:
    """Test ``differences`` (n,) for what they should ``generalise`` to.

    ``d`` (n, m) has the same of each example, with ``differences`` as the means of its rows.
    """
    over_seeds = paired(differences)
    n = len(differences)
    if generalise == "seeds" or not over_seeds.n:
        return over_seeds
    if generalise == "examples":
        columns = paired(d.mean(axis=0))
        return under(columns.errors, n, over_seeds.mean, over_seeds.std) if columns.errors else over_seeds
    if not over_seeds.errors:
        return over_seeds
    return under((*over_seeds.errors, layout(d).error), n, over_seeds.mean, over_seeds.std)


@dataclass(frozen=True)
class Needed:
    """How many ``examples``, or how many ``seeds``, would halve an interval; None where no number of them would."""

    examples: int | None
    seeds: int | None


def needed(layouts: Iterable[Layout]) -> Needed | None:
    """What would halve the typical interval of these differences, the others staying as they are; by their mean squares."""
    known = sorted((one for one in layouts if one.half > 0), key=lambda one: one.half)
    if not known:
        return None
    typical = known[len(known) // 2]
    n, m = typical.n, typical.m
    now = typical.resized(n, m).half

    def halves(seeds: int, examples: int) -> bool:
        return typical.resized(seeds, examples).half <= now / 2

    return Needed(
        _smallest(m, MOST_EXAMPLES, lambda examples: halves(n, examples)),
        _smallest(n, MOST_SEEDS, lambda seeds: halves(seeds, m)),
    )


def _smallest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest number above ``low`` and up to ``high`` that is enough, by bisection."""
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
