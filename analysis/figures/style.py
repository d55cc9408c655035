"""How figures look: colours, markers, ticks, legends and the lines of the reference trials.

The colours are the eight of Okabe and Ito (2008), chosen to be told apart by colour-blind readers; every series
also has its own marker, so that a grey print stays readable. Ordered factors (rank) get an ordered scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.columns import KIND, describe
from analysis.statistics.levels import REFERENCES, short
from analysis.statistics.observations import Observations

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_SERIES = len(PALETTE)
REFERENCE_STYLE: dict[Any, Any] = {"full": ("full fine-tuning", "--"), "none": ("untouched base", ":")}
STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,
    "svg.hashsalt": "lora-sweep",
    "figure.constrained_layout.use": True,
}


def colours(levels: Sequence[str]) -> dict[str, tuple[object, str]]:
    """A colour and a marker for each level: an ordered scale for three or more numbers, else the palette."""
    plain = [level for level in levels if level not in REFERENCES]
    numbers = len(plain) > 2 and all(_number(level) is not None for level in plain)
    scale = matplotlib.colormaps["viridis"]
    found: dict[str, tuple[object, str]] = {}
    for index, level in enumerate(plain):
        place = 0.88 * index / max(1, len(plain) - 1)
        colour = scale(place) if numbers else PALETTE[index % len(PALETTE)]
        found[level] = (colour, MARKERS[index % len(MARKERS)])
    found.update({level: ("#555555", "*") for level in levels if level in REFERENCES})
    return found


def thinned(levels: Sequence[str], most: int = MOST_SERIES) -> list[str]:
    """At most ``most`` levels, evenly spread with both ends kept."""
    if len(levels) <= most:
        return list(levels)
    return [levels[round(i * (len(levels) - 1) / (most - 1))] for i in range(most)]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the positions 0 … count − 1, evenly spread with both ends kept."""
    return [int(item) for item in thinned([str(i) for i in range(count)], most)]


def reference_lines(axis: Axes, observations: Observations, only: Sequence[str] = REFERENCES) -> None:
    """Horizontal lines for full fine-tuning and the untouched base; one far off the scale is only named."""
    for cell in observations.filled:
        if cell[0] in only and cell[0] in REFERENCE_STYLE and observations.factors[0] != KIND:
            text, line = REFERENCE_STYLE[cell[0]]
            mean = observations.summary(cell).mean
            low, high = axis.dataLim.intervaly
            far = 1.5 * (high - low)
            wide = axis.get_yscale() == "log"
            if cell[0] == "none" and not (wide or low - far <= mean <= high + far):
                axis.plot([], [], " ", label=f"{text}: {mean:.4g} (off the scale)")
            else:
                axis.axhline(mean, color="#555555", linestyle=line, linewidth=1.2, label=text)


def level_ticks(axis: Axes, levels: Sequence[str]) -> None:
    """Name the places 0, 1, 2, … of the x axis after ``levels``; at most 12, slanted where they are long."""
    at = spread(len(levels), 12)
    shown = [short(levels[i]) for i in at]
    slanted = sum(map(len, shown)) > 45
    axis.set_xticks(at, shown, rotation=30 if slanted else 0, ha="right" if slanted else "center")


def log_where_wide(axis: Axes, way: Literal["x", "y"]) -> None:
    """A log scale for drawn values that are positive and span more than a factor of 20."""
    low, high = axis.dataLim.intervalx if way == "x" else axis.dataLim.intervaly
    if not (low > 0 and high > 20 * low):
        return
    axis.set(**{f"{way}scale": "log"})
    line = axis.xaxis if way == "x" else axis.yaxis
    line.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    line.set_minor_formatter(NullFormatter())


def legend(axis: Axes, factor: str, some: bool) -> None:
    """A legend right of the axis, titled by ``factor``, references last; ``some``: not all levels are drawn."""
    title = describe(factor).label if factor else None
    if some:
        title = f"{title} (some levels)"
    handles, names = axis.get_legend_handles_labels()
    last = tuple(text for text, _ in REFERENCE_STYLE.values())
    order = sorted(range(len(names)), key=lambda i: names[i].startswith(last))
    handles, names = [handles[i] for i in order], [names[i] for i in order]
    axis.legend(handles, names, title=title, loc="center left", bbox_to_anchor=(1.01, 0.5), alignment="left")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
