"""How figures look: colours, markers, ticks, legends and the lines of the reference trials.

The colours are the eight of Okabe and Ito (2008), chosen to be told apart by colour-blind readers; every series
also has its own marker, so that a grey print stays readable. Ordered factors (rank) get an ordered scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from analysis.columns import KIND, describe
from analysis.statistics.levels import REFERENCES, short
from analysis.statistics.observations import Observations

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MARGIN = 0.08
"""Empty space left and right of the outermost numbers, relative to their distance."""
RATIO_OF_A_LOG_SCALE = 4
WIDTH_OF_A_CHARACTER = 0.02
"""Width of a character in a tick's name, relative to the axis, which is half of the figure's width or more."""
MOST_SERIES = len(PALETTE)
DIVERGED = "diverged trials"
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


def numbers(levels: Sequence[str]) -> list[float]:
    """``levels`` as numbers; empty where one is not a number."""
    found = [_number(level) for level in levels]
    return [value for value in found if value is not None] if None not in found else []


def scale_x(axis: Axes, levels: Sequence[str]) -> list[float]:
    """Where ``levels`` stand on the x axis: numbers at their number, on a log scale where they are spaced by ratios.

    Other levels stand at 0, 1, 2, …
    """
    places = numbers(levels)
    if len(places) < 2:
        axis.set_xlim(-0.5, len(levels) - 0.5)
        return list(range(len(levels)))
    low, high = places[0], places[-1]
    if low > 0 and _unevenness(np.log(places)) <= _unevenness(np.array(places)) and high >= RATIO_OF_A_LOG_SCALE * low:
        axis.set_xscale("log")
        margin = (high / low) ** MARGIN
        axis.set_xlim(low / margin, high * margin)
    else:
        axis.set_xlim(low - MARGIN * (high - low), high + MARGIN * (high - low))
    return places


def _unevenness(places: np.ndarray) -> float:
    steps = np.diff(places)
    return float(steps.std() / steps.mean())


def level_ticks(axis: Axes, levels: Sequence[str], places: Sequence[float]) -> None:
    """Name the ``places`` of the x axis after ``levels``; at most 12, none onto another, slanted where they are long."""
    at = spread(len(levels), 12)
    shown = [short(levels[i]) for i in at]
    slanted = sum(map(len, shown)) > 45
    if numbers(levels):
        at = _apart(axis, levels, places)
        shown, slanted = [levels[i] for i in at], False
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if slanted else {"rotation": 0, "ha": "center"}
    axis.set_xticks([places[i] for i in at], shown, **turned)
    axis.xaxis.set_minor_locator(NullLocator())


def _apart(axis: Axes, levels: Sequence[str], places: Sequence[float]) -> list[int]:
    """Levels whose names do not cover each other: the last one, and from the first on each that has room."""
    scale = axis.transLimits.transform
    at = [float(scale(axis.transScale.transform((place, 1.0)))[0]) for place in places]
    room = WIDTH_OF_A_CHARACTER * (max(map(len, levels)) + 1)
    kept: list[int] = []
    for index, place in enumerate(at[:-1]):
        if at[-1] - place >= room and (not kept or place - at[kept[-1]] >= room):
            kept.append(index)
    return [*kept, len(at) - 1]


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
    last = (*(text for text, _ in REFERENCE_STYLE.values()), DIVERGED)
    order = sorted(range(len(names)), key=lambda i: names[i].startswith(last))
    handles, names = [handles[i] for i in order], [names[i] for i in order]
    axis.legend(handles, names, title=title, loc="center left", bbox_to_anchor=(1.01, 0.5), alignment="left")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
