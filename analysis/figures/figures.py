"""The figures of a report: the plots that a question calls for, drawn and written as SVG, PDF and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from analysis.columns import COST, LEARNING_RATE, TRAINABLE, describe
from analysis.figures import plots
from analysis.figures.style import STYLE
from analysis.statistics.cells import at_chosen_rates
from analysis.statistics.compare import Comparison
from analysis.statistics.confidence import INTERVAL_NAME
from analysis.statistics.curves import learning_curves
from analysis.statistics.levels import REFERENCES
from analysis.statistics.observations import Observations
from analysis.statistics.questions import Question
from analysis.tables.wording import HOW, generalised
from sweep.metrics import ALONE_MEMORY, ALONE_STEP, TRAIN_LOSS, Metric, of_source, validation_name

OVER_SEEDS = f"Points and bands are means with a {INTERVAL_NAME} over seeds; each seed is drawn faintly."
OF_CELLS = f"{OVER_SEEDS} A cross counts the trials that diverged there, at whatever learning rate."
FOREST = "forest_"
"""Begins the names of the figures of differences from a baseline."""
WIDE = (6.4, 3.8)
PADDING = 0.1
"""Inches around what is drawn."""
TRADED = {"pareto": TRAINABLE, "pareto_time": ALONE_STEP.name, "pareto_memory": ALONE_MEMORY.name}
"""The costs that a better metric may have, by the name of their figure."""
FORMATS = {"svg": ("Date", "Creator"), "pdf": ("CreationDate", "Creator", "Producer"), "png": ("Software",)}
"""The formats of a figure, with the metadata that would make two equal drawings differ."""


class Picture(Figure):
    """A figure that a notebook shows, whether or not ``pyplot`` is there."""

    def _repr_png_(self) -> bytes:
        return _written(self, "png", "tight")


@dataclass(frozen=True)
class Drawing:
    """One figure, painted when it is asked for by ``paint(axis, *given)`` on an axis of ``size`` inches.

    ``name`` is a file name without ending; ``caption`` names the intervals.
    """

    name: str
    caption: str
    size: tuple[float, float]
    paint: Callable[..., Axes]
    given: tuple[Any, ...]

    def figure(self) -> Figure:
        """The figure, painted anew each time."""
        with matplotlib.rc_context(STYLE):
            figure = Picture(figsize=self.size, layout="constrained")
            FigureCanvasAgg(figure)
            self.paint(figure.add_subplot(), *self.given)
        return figure

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """The figure in each of ``FORMATS``, laid out once for all.

        The same drawing gives the same bytes: no date, no version, seeded identifiers.
        """
        figure = self.figure()
        with matplotlib.rc_context(STYLE):
            figure.dpi = STYLE["savefig.dpi"]
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
            area = figure.get_tightbbox().padded(PADDING)
        return {style: _written(figure, style, area) for style in FORMATS}


def _written(figure: Figure, style: str, area: Bbox | Literal["tight"]) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=style, metadata=dict.fromkeys(FORMATS[style]), bbox_inches=area)
    return file.getvalue()


def figures(
    question: Question, history: pd.DataFrame, comparisons: Mapping[str, Sequence[Comparison]]
) -> Iterator[Drawing]:
    """Every figure that ``question`` calls for, each made when it is asked for; ``comparisons`` feed the forest plots."""
    observations = question.observe(question.shown)
    yield from _of_cells(question, observations)
    yield from _of_differences(question, comparisons)
    yield from _of_training(question, history)
    yield from _of_trade_offs(question, observations)
    yield from _of_cost(question)


def _of_cells(question: Question, observations: Observations) -> list[Drawing]:
    drawings = []
    if len(observations.filled) > 1:
        caption = f"{question.primary} by {_by(question)}. {OF_CELLS}"
        drawings.append(Drawing("response", caption, WIDE, plots.response, (observations,)))
    if question.tuned:
        rates = question.observe((LEARNING_RATE, question.rows))
        caption = f"{question.primary} by learning rate and {describe(question.rows).label}. {OF_CELLS}"
        drawings.append(Drawing("learning_rate", caption, WIDE, plots.response, (rates,)))
    if len(observations.factors) == 2 and all(_plain(observations.levels[factor]) > 1 for factor in question.shown):
        caption = f"Mean {question.primary} by {_by(question)}."
        drawings.append(Drawing("heat", caption, WIDE, plots.heat_map, (observations,)))
    return drawings


def _of_differences(question: Question, comparisons: Mapping[str, Sequence[Comparison]]) -> list[Drawing]:
    drawings = []
    for factor, compared in comparisons.items():
        base = "/".join(compared[0].baseline)
        caption = (
            f"Paired differences in {question.primary} between levels of {describe(factor).label} and {base}, "
            f"at equal seeds, with uncorrected {INTERVAL_NAME}s ({HOW[generalised(compared)]}); filled: significant after Holm's "
            "correction. "
            "n.d. (≥ x): not distinguishable, though a difference of x could have been seen."
        )
        size = (5.2, 1.1 + 0.34 * min(25, len(compared)))
        name = f"{FOREST}{factor.split('.')[-1]}"
        drawings.append(Drawing(name, caption, size, plots.forest, (compared, question.column(question.primary))))
    return drawings


def _of_training(question: Question, history: pd.DataFrame) -> list[Drawing]:
    drawings = []
    tuned = at_chosen_rates(question.trials, question.observe((question.rows,)))
    rows = history[history["trial_id"].isin(tuned["trial_id"])]
    for metric in dict.fromkeys((validation_name(question.primary), TRAIN_LOSS.name)):
        if metric in rows and rows[metric].notna().any():
            caption = f"{metric} while training, by {describe(question.rows).label}. {OVER_SEEDS}"
            name = f"curves_{metric.replace('/', '-')}"
            by_level = learning_curves(tuned, rows, question.rows, metric)
            drawings.append(
                Drawing(name, caption, WIDE, plots.curves, (by_level, question.rows, question.column(metric)))
            )
    return drawings


def _of_trade_offs(question: Question, observations: Observations) -> list[Drawing]:
    drawings = []
    trials = question.trials
    for name, cost in TRADED.items():
        across = question.observe(question.shown, cost) if cost in trials and trials[cost].nunique() > 1 else None
        if across and len({across.summary(cell).mean for cell in across.filled}) > 1:
            caption = (
                f"{question.primary} against {across.metric.label}. The step line is the Pareto front; its cells are "
                f"named by {describe(question.rows).label}. {OVER_SEEDS}"
            )
            drawings.append(Drawing(name, caption, WIDE, plots.scatter, (across, observations, True)))
    forgotten = of_source(Metric(question.primary, "")).name
    if forgotten in trials and trials[forgotten].notna().any() and observations.metric.better == "lower":
        kept = question.observe(question.shown, forgotten)
        caption = (
            f"Forgetting ({forgotten}) against adaptation ({question.primary}); lower left is better. {OVER_SEEDS}"
        )
        drawings.append(Drawing("forgetting", caption, WIDE, plots.scatter, (observations, kept)))
    return drawings


def _of_cost(question: Question) -> list[Drawing]:
    drawings = []
    for metric in (name for name in question.secondary if name.startswith(COST)):
        measured = question.observe(question.shown, metric)
        if measured.metric.better != "lower":
            continue
        size = (6.0, 1.0 + 0.25 * min(20, len(measured.filled)))
        caption = f"{measured.metric.title} by cell. {OVER_SEEDS}"
        drawings.append(Drawing(metric.replace("/", "_"), caption, size, plots.bars, (measured,)))
    return drawings


def _by(question: Question) -> str:
    return " and ".join(describe(factor).label for factor in question.shown)


def _plain(levels: Sequence[str]) -> int:
    return sum(level not in REFERENCES for level in levels)
