"""What lies behind a mean: the value of every seed, and the seeds that diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import DIVERGED
from analysis.statistics.observations import Observations

FAINT = 0.6
POINT: dict[str, Any] = {
    "marker": ".", "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.4, "alpha": FAINT, "zorder": 3,
    "gid": "seed",
}  # fmt: skip
"""How the value of one seed looks: above the intervals, so that these do not hide it."""
MOST_JOINED_SEEDS = 6
RED = "#b00000"


def seeds(axis: Axes, xs: Sequence[float], cells: Sequence[pd.Series], colour: object, joined: bool) -> None:
    """A faint point for each seed of each cell; ``joined``: the points of one seed, where there are few seeds."""
    frame = pd.DataFrame(dict(enumerate(cells)))
    line = "-" if joined and len(frame) <= MOST_JOINED_SEEDS else "none"
    for _, values in frame.iterrows():
        axis.plot(xs, values.to_numpy(dtype=float), color=colour, linestyle=line, linewidth=0.4, **POINT)


def diverged_marks(axis: Axes, observations: Observations, places: Mapping[str, float]) -> None:
    """A cross and a count above the place of each level of the first factor at which trials diverged."""
    diverged = observations.counts["diverged"].groupby(level=0).sum()
    label: str | None = DIVERGED
    for level, place in places.items():
        if count := int(diverged.get(level, 0)):
            top = axis.get_xaxis_transform()
            axis.plot([place], [1.0], "x", color=RED, clip_on=False, transform=top, gid="diverged", label=label)
            text = axis.annotate(str(count), (place, 1.0), (6, 0), xycoords=top, textcoords="offset points")
            text.set(va="center", fontsize=9, color=RED, annotation_clip=False)
            label = None
