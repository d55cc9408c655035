"""Comparisons with a baseline, and what explains the variance, as plain tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis.columns import describe
from analysis.statistics.compare import Comparison, Verdict
from analysis.statistics.confidence import INTERVAL_NAME
from analysis.statistics.effects import Effects
from analysis.statistics.observations import Cell, Observations
from analysis.tables.layout import file_stem
from analysis.tables.listing import Listing
from analysis.tables.numbers import mean_text, number, p_text
from analysis.tables.sentences import note_text
from analysis.tables.wording import how_texts, sentence
from sweep.text import counted

MARKS: Mapping[Verdict, str] = {
    "better": "better",
    "better where it converges": "better",
    "worse": "worse",
    "worse where the baseline converges": "worse",
    "equivalent": "equivalent",
    "not distinguishable": "undecided",
    "depends": "undecided",
    "different": "different",
    "no variation": "equivalent",
}
"""The sign of a verdict; one that draws no conclusion about the cells has none."""


def comparison_listing(observations: Observations, baseline: Cell, comparisons: Sequence[Comparison]) -> Listing:
    """A row for each cell that is compared with ``baseline``, its sign, and the verdict in words."""
    metric = observations.metric
    factors = " and ".join(describe(factor).label for factor in observations.factors)
    base = f"{'/'.join(baseline)} = {mean_text(observations.summary(baseline))}"
    better = f" ({metric.better} is better)" if metric.better else ""
    return Listing(
        name=f"comparisons_{file_stem(metric.name, *observations.factors)}",
        caption=f"{metric.title}{better} by {factors}, against {base}.",
        heads=(factors, "difference", INTERVAL_NAME, "n", "p", "d", "verdict"),
        rows=tuple(_row(item, metric.unit) for item in comparisons),
        notes=tuple(how_texts(observations, comparisons)),
        marks=tuple(MARKS.get(item.verdict, "none") for item in comparisons),
    )


def _row(item: Comparison, unit: str) -> tuple[str, ...]:
    difference = item.difference
    tested = not math.isnan(item.p_holm)
    return (
        "/".join(item.cell),
        number(difference.mean, True),
        f"[{number(difference.low, True)}, {number(difference.high, True)}]" if difference.n > 1 else "–",
        str(difference.n),
        p_text(item.p_holm).removeprefix("=") if tested else "–",
        number(difference.effect, True) if tested else "–",
        sentence(item, unit),
    )


def effects_listing(effects: Effects) -> Listing:
    """A row for each factor and interaction: its share of the variance, and its test."""
    return Listing(
        name=f"variance_{file_stem(effects.metric)}",
        caption=(
            f"Variance of {effects.metric} between LoRA trials: type II analysis of variance with the seed as block "
            f"({counted(effects.n, 'trial')}, {effects.residual_freedom} residual degrees of freedom)."
        ),
        heads=("source", "df", "share of variance (η²)", "partial η²", "F", "p (Holm)"),
        rows=tuple(
            (
                " × ".join(describe(name).label for name in effect.source.split(" × ")),
                str(effect.freedom),
                f"{100 * effect.share:.1f}%",
                f"{effect.partial:.2f}",
                number(effect.f),
                p_text(effect.p_holm).removeprefix("="),
            )
            for effect in effects.effects
        ),
        notes=tuple(map(note_text, effects.notes)),
    )
