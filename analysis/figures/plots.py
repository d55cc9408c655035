"""Plots of a sweep: each function draws on the axis it is given and returns it.

Pass an axis that was made under ``analysis.figures.style.STYLE``, as ``analysis.figures.figures.draw`` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.columns import SIZE, Column, describe
from analysis.figures.labelling import place_labels
from analysis.figures.seeds import FAINT, POINT, diverged_marks, seeds
from analysis.figures.style import (
    PALETTE,
    REFERENCE_STYLE,
    colours,
    legend,
    level_ticks,
    log_where_wide,
    numbers,
    reference_lines,
    scale_x,
    spread,
    thinned,
)
from analysis.statistics.compare import Comparison
from analysis.statistics.curves import Curve
from analysis.statistics.levels import REFERENCES, is_adapter, ordered, short
from analysis.statistics.observations import Cell, Observations
from analysis.tables.numbers import number

MOST_JOINED = 3
"""Series up to which the values of one seed are joined."""
MOST_SEED_LINES = 10
BESIDE = 0.2
"""Seeds stand this far below the interval of their row."""
SHORT_VERDICTS = {
    "better where it converges": "better, some diverged",
    "worse where the baseline converges": "worse, some diverged",
    "refused": "no verdict",
}


def curves(axis: Axes, by_level: Mapping[str, Curve], factor: str, metric: Column) -> Axes:
    """``metric`` over steps, one curve per level of ``factor``: means over seeds with bands of their intervals.

    Every seed is a faint line, where there are not too many.
    """
    levels = [level for level in ordered(by_level) if level != "none"]
    shown = thinned(levels)
    style = colours(shown)
    for name in shown:
        curve = by_level[name]
        colour, marker = style[name]
        line = "--" if name in REFERENCES else "-"
        every = max(1, len(curve.steps) // 6)
        text = f"{REFERENCE_STYLE.get(name, (short(name),))[0]} (n={curve.most_seeds})"
        means = [item.mean for item in curve.summaries]
        lows, highs = [item.low for item in curve.summaries], [item.high for item in curve.summaries]
        axis.plot(curve.steps, means, line, color=colour, marker=marker, markevery=every, markersize=4.5, label=text)
        axis.fill_between(curve.steps, lows, highs, color=colour, alpha=0.18, linewidth=0)
    for name in shown:
        if by_level[name].most_seeds <= MOST_SEED_LINES:
            for steps, values in by_level[name].seeds:
                axis.plot(steps, values, "-", color=style[name][0], alpha=FAINT, linewidth=0.6, gid="seed")
    log_where_wide(axis, "y")
    axis.set_xlabel("step")
    axis.set_ylabel(metric.title)
    legend(axis, factor, len(shown) < len(levels))
    return axis


def response(axis: Axes, observations: Observations) -> Axes:
    """The metric against the first factor, one line per level of the second, with intervals and every seed.

    Levels that are numbers stand at their number. Full fine-tuning and the untouched base are horizontal lines where
    the first factor is the adapter's; against a learning rate full fine-tuning is a line like the others.
    """
    first = [level for level in observations.levels[observations.factors[0]] if level not in REFERENCES]
    second = _second_levels(observations)
    shown = thinned(second)
    style = colours(shown)
    places = scale_x(axis, first)
    dodge = 0.0 if len(shown) == 1 or numbers(first) else 0.24
    for index, name in enumerate(shown):
        shift = dodge * (index / max(1, len(shown) - 1) - 0.5)
        at = {(level, name) if name else (level,): place + shift for level, place in zip(first, places, strict=True)}
        summaries = {cell: observations.summary(cell) for cell in at}
        filled = [cell for cell, item in summaries.items() if item.n]
        means = [summaries[cell].mean for cell in filled]
        halves = [summaries[cell].half if summaries[cell].n > 1 else 0.0 for cell in filled]
        colour, marker = style[name]
        xs = [at[cell] for cell in filled]
        axis.errorbar(xs, means, halves, color=colour, marker=marker, markersize=5, capsize=3, label=short(name))
        seeds(axis, xs, [observations.cell(cell) for cell in filled], colour, len(shown) <= MOST_JOINED)
    log_where_wide(axis, "y")
    reference_lines(axis, observations)
    diverged_marks(axis, observations, dict(zip(first, places, strict=True)))
    level_ticks(axis, first, places)
    axis.set_xlabel(describe(observations.factors[0]).label)
    axis.set_ylabel(f"{observations.metric.title} {observations.metric.arrow}")
    if len(second) > 1 or axis.get_legend_handles_labels()[1]:
        title = observations.factors[1] if len(observations.factors) > 1 else ""
        legend(axis, title, len(shown) < len(second))
    return axis


def heat_map(axis: Axes, observations: Observations) -> Axes:
    """Cell means over two factors; a cell without a finished trial stays white with a dash."""
    rows, columns = (
        [level for level in observations.levels[factor] if level not in REFERENCES] for factor in observations.factors
    )
    means = np.array([[observations.summary((row, column)).mean for column in columns] for row in rows])
    name = "cividis" if observations.metric.better == "higher" else "cividis_r"
    image = axis.imshow(np.ma.masked_invalid(means), cmap=name, aspect="auto")
    axis.grid(False)
    level_ticks(axis, columns, list(range(len(columns))))
    at = spread(len(rows), 20)
    axis.set_yticks(at, [short(rows[i]) for i in at])
    axis.set_xlabel(describe(observations.factors[1]).label)
    axis.set_ylabel(describe(observations.factors[0]).label)
    if max(len(rows), len(columns)) <= 12:
        for (row, column), value in np.ndenumerate(means):
            light = np.isnan(value) or sum(image.cmap(image.norm(value))[:3]) > 1.5
            text = "–" if np.isnan(value) else f"{value:#.4g}"
            axis.text(column, row, text, ha="center", va="center", color="black" if light else "white")
    bar = axis.figure.colorbar(image, ax=axis)
    bar.set_label(f"{observations.metric.title} {observations.metric.arrow}")
    bar.outline.set_visible(False)
    return axis


def forest(axis: Axes, comparisons: Sequence[Comparison], metric: Column, most: int = 25) -> Axes:
    """Paired differences with their intervals and every seed, one row per cell; filled where significant after Holm.

    ``n.d. (≥ x)`` is: not distinguishable, but a difference of x could have been seen.
    The ``most`` largest are shown; the interval itself is not corrected for the number of rows. The
    untouched base is left out, because it would set the scale.
    """
    wanted = [item for item in comparisons if "none" not in item.cell] or comparisons
    shown = sorted(wanted, key=lambda item: -abs(item.difference.mean))[:most]
    shown = [item for item in wanted if item in shown and item.difference.n]
    colour = {"better": PALETTE[0], "worse": PALETTE[1], "different": PALETTE[2]}
    for index, item in enumerate(shown):
        d = item.difference
        tint = colour.get(item.verdict, "#777777")
        if d.n > 1:
            axis.plot([d.low, d.high], [index, index], color=tint, linewidth=1.8)
        axis.plot(item.by_seed, [index + BESIDE] * d.n, color=tint, linestyle="none", **POINT)
        axis.plot(d.mean, index, "o", color=tint, markerfacecolor=tint if item.significant else "white")
        missed = item.verdict == "not distinguishable"
        text = f"n.d. (≥ {number(item.detectable)})" if missed else SHORT_VERDICTS.get(item.verdict, item.verdict)
        axis.annotate(text, (1.02, index), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=tint)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(shown)), [short("/".join(item.cell)) for item in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.set_xlabel(f"{metric.title}: difference to {short('/'.join(shown[0].baseline))}" if shown else "")
    return axis


def scatter(axis: Axes, across: Observations, up: Observations, front: bool = False) -> Axes:
    """One metric against another, one point per cell with the intervals of both.

    Cells of one level of the last factor share a colour and are joined in the order of the first factor.
    The untouched base is a line. ``front``: draw the Pareto front of low ``across`` and good ``up``, and name
    its cells; otherwise the cells of one series are named. An ``across`` of parameters gets a log axis.
    """
    counted = across.metric.name.startswith(SIZE)
    groups: dict[str, list[Cell]] = {}
    for cell in up.filled:
        if across.cell(cell).empty or (counted and across.summary(cell).mean <= 0):
            continue
        group = cell[0] if cell[0] in REFERENCES else cell[-1] if len(cell) > 1 else ""
        if group != "none":
            groups.setdefault(group, []).append(cell)
    style = colours(ordered(groups))
    points: dict[Cell, tuple[float, float]] = {}
    for group in ordered(groups):
        cells = groups[group]
        x, y = [across.summary(cell) for cell in cells], [up.summary(cell) for cell in cells]
        colour, marker = style[group]
        points.update({cell: (a.mean, b.mean) for cell, a, b in zip(cells, x, y, strict=True)})
        axis.errorbar(
            [item.mean for item in x],
            [item.mean for item in y],
            [item.half if item.n > 1 else 0.0 for item in y],
            [item.half if item.n > 1 and not counted else 0.0 for item in x],
            fmt=marker,
            linestyle="-" if len(cells) > 1 else "none",
            color=colour,
            linewidth=0.9,
            elinewidth=1,
            markersize=9 if group in REFERENCES else 5,
            capsize=0 if group in REFERENCES else 2,
            label=REFERENCE_STYLE.get(group, (short(group),))[0],
        )
        for cell in cells:
            both = across.cell(cell).index.intersection(up.cell(cell).index)
            pairs = across.cell(cell)[both], up.cell(cell)[both]
            axis.plot(*pairs, color=colour, linestyle="none", **POINT)
    if counted:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        log_where_wide(axis, "x")
    log_where_wide(axis, "y")
    reference_lines(axis, up, only=("none",))
    axis.set_xlabel(f"{across.metric.title} {across.metric.arrow}")
    axis.set_ylabel(f"{up.metric.title} {up.metric.arrow}")
    if len(groups) > 1 or axis.get_legend_handles_labels()[1] != [""]:
        legend(axis, up.factors[-1] if len(up.factors) > 1 else "", False)
    named = next((groups[group] for group in ordered(groups) if group not in REFERENCES), [])[:12]
    if front:
        named = _front(points, up.metric.sign)
        corners = np.array([points[cell] for cell in named])
        if len(named) > 1:
            axis.step(corners[:, 0], corners[:, 1], where="post", color="black", linewidth=0.8, zorder=1)
    wanted = [(points[cell], short(cell[0], 12)) for cell in named if cell[0] not in REFERENCES]
    place_labels(axis, wanted, list(points.values()))
    return axis


def bars(axis: Axes, observations: Observations) -> Axes:
    """A measure of cost (speed, memory) by cell: horizontal bars with intervals and every seed, 20 cells at most."""
    cells = [observations.filled[i] for i in spread(len(observations.filled), 20)]
    summaries = [observations.summary(cell) for cell in cells]
    halves = [item.half if item.n > 1 else 0.0 for item in summaries]
    axis.barh(range(len(cells)), [item.mean for item in summaries], xerr=halves, color="#9ecae1", ecolor="#333333")
    for place, cell in enumerate(cells):
        values = observations.cell(cell)
        axis.plot(values, [place + BESIDE] * len(values), color="#333333", linestyle="none", **POINT)
    axis.set_yticks(range(len(cells)), [short(" / ".join(dict.fromkeys(cell)), 30) for cell in cells])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"{observations.metric.title} {observations.metric.arrow}")
    return axis


def _second_levels(observations: Observations) -> list[str]:
    if len(observations.factors) == 1:
        return [""]
    apart = REFERENCES if is_adapter(observations.factors[0]) else ("none",)
    return [level for level in observations.levels[observations.factors[1]] if level not in apart]


def _front(points: dict[Cell, tuple[float, float]], sign: float) -> list[Cell]:
    """Cells that no other beats in both directions: fewer parameters and a better metric."""
    best: list[Cell] = []
    for cell in sorted(points, key=lambda c: (points[c][0], sign * points[c][1])):
        if not best or sign * points[cell][1] < sign * points[best[-1]][1]:
            best.append(cell)
    return best
