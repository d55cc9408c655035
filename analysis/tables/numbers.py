"""Numbers and lists in plain English, wherever one is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.columns import describe
from analysis.statistics.intervals import Summary
from analysis.statistics.settings import Together

TINY, HUGE = 1e-4, 1e7
"""Means and intervals outside these are written with an exponent."""
FLOAT_NOISE = 1e-9
MOST_DECIMALS = 8


def number(value: float, signed: bool = False) -> str:
    """Three significant digits, never an exponent for a number of everyday size."""
    if math.isnan(value):
        return "–"
    style = ".0f" if 1000 <= abs(value) < HUGE else ".3g"
    text = f"{value:+{style}}" if signed else f"{value:{style}}"
    return text.replace("-", "−") if signed else text


def p_text(p: float) -> str:
    """A p value to three digits, ``<0.001`` below that: smaller ones say nothing more at a few seeds."""
    return "<0.001" if p < 0.001 else f"={number(p)}"


def mean_text(summary: Summary) -> str:
    """``1.316 ± 0.021 (n=5)``: as many decimals as give the half interval two digits."""
    if not varies(summary):
        return f"{number(summary.mean)} (n={summary.n})"
    return f"{mean_and_half(summary.mean, summary.half)} (n={summary.n})"


def varies(summary: Summary) -> bool:
    """Whether there is an interval wider than the rounding of floats."""
    return summary.half > FLOAT_NOISE * abs(summary.mean)


def mean_and_half(mean: float, half: float, plus_minus: str = "±") -> str:
    """A mean with two digits of its own half interval: ``1.316 ± 0.021``, or ``7.0e-10 ± 1.2e-10`` far from 1."""
    finest = math.floor(math.log10(half)) - 1
    if mean and not TINY <= abs(mean) < HUGE and not TINY <= half < HUGE:
        digits = min(8, max(1, math.floor(math.log10(abs(mean))) - finest))
        return f"{exponent(mean, digits)} {plus_minus} {exponent(half, 1)}"
    if -finest > MOST_DECIMALS:
        return f"{mean:.{MOST_DECIMALS}f} {plus_minus} {exponent(half, 1)}"
    decimals = max(0, -finest)
    return f"{mean:.{decimals}f} {plus_minus} {half:.{decimals}f}"


def exponent(value: float, digits: int) -> str:
    """``9.4e23``, with ``digits`` behind the point."""
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(power)}"


def short_number(value: float) -> str:
    """Two digits at least: ``9.0``, ``0.45``, ``9.4e23``."""
    if value and not TINY <= abs(value) < HUGE:
        return exponent(value, 1)
    return f"{value:#.2g}" if abs(value) < 100 else number(value)


def rounded_up(count: int) -> int:
    """A count with two digits, never a smaller one: 263 is 270."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def together_text(moves: Together) -> str:
    """``rank together with alpha (alpha = 2·rank)``."""
    asked, follower = describe(moves.asked).label, describe(moves.follower).label
    return f"{asked} together with {follower} ({describe(moves.alpha).label} = {moves.ratio:g}·{describe(moves.rank).label})"
