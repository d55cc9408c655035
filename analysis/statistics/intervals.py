"""The statistics of a few seeds: t intervals, paired differences, Holm's correction, detectable effects.

Plain arrays in, small dataclasses out; nothing here knows what a trial is. ``docs/statistics.md`` holds the
measured coverage and false-positive rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from analysis.statistics.confidence import CONFIDENCE

ALPHA = 0.05
POWER = 0.8
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Summary:
    """One cell: ``mean`` with ``low`` … ``high`` (NaN below two values), ``std`` with n−1, and ``median``."""

    n: int
    mean: float
    std: float
    median: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval, in the metric's unit."""
        return (self.high - self.low) / 2


def mean(values: np.ndarray) -> float:
    """The summary of several finite values: their arithmetic mean."""
    return float(values.mean())


def quantile(freedom: float) -> float:
    """Half the width of an interval in standard errors, at ``freedom`` degrees of freedom."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def summarise(values: ArrayLike) -> Summary:
    """Mean and 95% t interval of the finite ``values``; NaN where there are too few of them."""
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    n = len(x)
    if n == 0:
        return Summary(0, *[math.nan] * 5)
    centre, median = mean(x), float(np.median(x))
    if n == 1:
        return Summary(1, centre, math.nan, median, math.nan, math.nan)
    std = float(x.std(ddof=1))
    half = quantile(n - 1) * std / math.sqrt(n)
    return Summary(n, centre, std, median, centre - half, centre + half)


@dataclass(frozen=True)
class Error:
    """A standard error ``size`` of a mean, estimated with so many degrees of ``freedom``."""

    size: float
    freedom: float

    def p(self, distance: float) -> float:
        """Two-sided p of a mean that is ``distance`` from the tested value."""
        return float(2 * special.stdtr(self.freedom, -abs(distance) / self.size))

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return quantile(self.freedom) * self.size


@dataclass(frozen=True)
class Paired:
    """Differences cell − baseline at equal seeds: mean, 95% t interval, two-sided paired t test.

    ``effect`` is the mean difference in standard deviations of the differences (Cohen's d_z). ``p`` and
    ``effect`` are NaN where the differences do not vary, or where there are fewer than two. ``errors``: what is claimed must
    hold under each of these, so that ``p`` is the largest of theirs and the interval the widest; one that is over seeds
    alone unless the examples are a sample too (see ``analysis.statistics.crossed``).
    """

    n: int
    mean: float
    low: float
    high: float
    std: float
    p: float
    effect: float
    errors: tuple[Error, ...] = ()

    def p_outside(self, margin: float) -> float:
        """P of the hypothesis that the true difference is ``margin`` or more from zero: two one-sided t tests.

        Schuirmann 1987: the larger of both sides, under each of the errors; NaN where nothing varies.
        """
        room = margin - abs(self.mean)
        ps = [special.stdtr(error.freedom, -room / error.size) for error in self.errors]
        return float(max(ps)) if ps else math.nan


def paired(differences: ArrayLike) -> Paired:
    """Test the finite ``differences`` against zero, over seeds.

    Differences whose spread is below float noise (1e-9 of their size) carry no evidence: they would give
    p = 0 from a single distinct observation. Their p is NaN.
    """
    x = np.asarray(differences, dtype=float)
    summary = summarise(x)
    x = x[np.isfinite(x)]
    if summary.n < 2 or summary.std <= 1e-9 * float(np.abs(x).max()):
        std = summary.std if summary.n < 2 else 0.0
        return Paired(summary.n, summary.mean, summary.low, summary.high, std, math.nan, math.nan)
    error = Error(summary.std / math.sqrt(summary.n), summary.n - 1)
    return under((error,), summary.n, summary.mean, summary.std)


def under(errors: tuple[Error, ...], n: int, mean: float, std: float) -> Paired:
    """The largest p and the widest interval under ``errors`` of a mean difference over ``n`` seeds."""
    p, half = max(error.p(mean) for error in errors), max(error.half for error in errors)
    return Paired(n, mean, mean - half, mean + half, std, p, mean / std if std else math.nan, errors)


@dataclass(frozen=True)
class Unpaired:
    """Difference of two means without a seed in common, with Welch's 95% t interval (NaN below two seeds a side)."""

    mean: float
    low: float
    high: float


def unpaired(cell: ArrayLike, baseline: ArrayLike) -> Unpaired:
    """Welch's interval of mean(cell) − mean(baseline) (Welch 1947)."""
    left, right = summarise(cell), summarise(baseline)
    difference = left.mean - right.mean
    if min(left.n, right.n) < 2:
        return Unpaired(difference, math.nan, math.nan)
    parts = [side.std**2 / side.n for side in (left, right)]
    total = sum(parts)
    if total == 0:
        return Unpaired(difference, difference, difference)
    freedom = total**2 / sum(part**2 / (side.n - 1) for part, side in zip(parts, (left, right), strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Unpaired(difference, difference - half, difference + half)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (Holm 1979); NaN stays NaN and does not count in the family."""
    p = np.asarray(ps, dtype=float)
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def detectable(error: Error, family: int = 1) -> float:
    """The smallest true mean difference that a t test under ``error`` would have found with 80% power.

    ``family`` is the number of comparisons: the level is ALPHA/family, the first and strictest step of Holm's
    procedure. Solves the noncentral t distribution for its shift; the far tail, below 1e-4 there, is left out.
    """
    return _shift(error.freedom, family) * error.size


@lru_cache(1024)
def _shift(freedom: float, family: int) -> float:
    """The same in standard errors."""
    from scipy.optimize import brentq

    critical = float(stats.t.isf(ALPHA / family / 2, freedom))

    def shortfall(shift: float) -> float:
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    high = 1.0
    while shortfall(high) < 0:
        high *= 1.5
    return float(brentq(shortfall, 0.0, high))


def smallest_rank_p(n: int) -> float:
    """The smallest two-sided p that a sign-flip or Wilcoxon test can reach with ``n`` pairs: 2^(1−n)."""
    return min(1.0, 2.0 ** (1 - n))
