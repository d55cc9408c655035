"""The figures of a report: which plots a question deserves, drawn and written as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.columns import LEARNING_RATE, TRAINABLE, describe
from analysis.figures import plots
from analysis.figures.style import STYLE
from analysis.report.questions import Question
from analysis.statistics.cells import Observations, at_chosen_rates, observe
from analysis.statistics.compare import Comparison
from analysis.statistics.intervals import INTERVAL_NAME
from analysis.statistics.levels import REFERENCES

OVER_SEEDS = f"Points and bands are means with a {INTERVAL_NAME} over seeds."
SOURCE_LOSS = "eval/source_loss"
WIDE = (6.4, 3.8)


@dataclass(frozen=True)
class Drawing:
    """One figure: a file name without ending, a caption that names its intervals, and both formats' bytes."""

    name: str
    caption: str
    svg: bytes
    png: bytes


def draw(name: str, caption: str, size: tuple[float, float], paint: Callable[..., Axes], *given: Any) -> Drawing:
    """Make a figure of ``size`` inches, call ``paint(axis, *given)`` on its axis, and render it.

    The same drawing gives the same bytes: no date, no version, and seeded SVG identifiers.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        paint(figure.add_subplot(), *given)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        figure.savefig(png, format="png", metadata={"Software": None}, bbox_inches="tight")
    return Drawing(name, caption, svg.getvalue(), png.getvalue())


def figures(question: Question, history: pd.DataFrame, comparisons: dict[str, list[Comparison]]) -> list[Drawing]:
    """Every figure that ``question`` deserves; ``comparisons`` by factor feed the forest plots."""
    seen = observe(question.trials, question.shown, question.primary)
    return [
        *_of_cells(question, seen),
        *_of_differences(question, comparisons),
        *_of_training(question, history),
        *_of_trade_offs(question, seen),
        *_of_cost(question),
    ]


def _of_cells(question: Question, seen: Observations) -> list[Drawing]:
    found = []
    if len(seen.filled) > 1:
        caption = f"{question.primary} by {_by(question)}. {OVER_SEEDS}"
        found.append(draw("response", caption, WIDE, plots.response, seen))
    if question.tuned:
        rates = observe(question.trials, (LEARNING_RATE, question.rows), question.primary)
        caption = f"{question.primary} by learning rate and {describe(question.rows).label}. {OVER_SEEDS}"
        found.append(draw("learning_rate", caption, WIDE, plots.response, rates))
    if len(seen.factors) == 2 and all(_plain(seen.levels[factor]) > 1 for factor in seen.factors):
        found.append(draw("heat", f"Mean {question.primary} by {_by(question)}.", WIDE, plots.heat_map, seen))
    return found


def _of_differences(question: Question, comparisons: dict[str, list[Comparison]]) -> list[Drawing]:
    found = []
    for factor, compared in comparisons.items():
        if compared:
            base = "/".join(compared[0].baseline)
            caption = (
                f"Paired differences in {question.primary} between levels of {describe(factor).label} and {base}, "
                f"at equal seeds, with uncorrected {INTERVAL_NAME}s; filled: significant after Holm's correction. "
                "n.d. (≥ x): not distinguishable, though a difference of x could have been seen."
            )
            size = (5.2, 1.1 + 0.34 * min(25, len(compared)))
            name = f"forest_{factor.split('.')[-1]}"
            found.append(draw(name, caption, size, plots.forest, compared, describe(question.primary)))
    return found


def _of_training(question: Question, history: pd.DataFrame) -> list[Drawing]:
    found = []
    tuned = at_chosen_rates(question.trials, observe(question.trials, (question.rows,), question.primary))
    rows = history[history["trial_id"].isin(tuned["trial_id"])]
    for metric in dict.fromkeys((question.primary, "train/loss")):
        if metric in rows and rows[metric].notna().any():
            caption = f"{metric} while training, by {describe(question.rows).label}. {OVER_SEEDS}"
            name = f"curves_{metric.replace('/', '-')}"
            found.append(draw(name, caption, WIDE, plots.learning_curves, tuned, rows, question.rows, metric))
    return found


def _of_trade_offs(question: Question, seen: Observations) -> list[Drawing]:
    found = []
    trials = question.trials
    if TRAINABLE in trials and trials[TRAINABLE].nunique() > 1:
        size = observe(trials, question.shown, TRAINABLE)
        caption = (
            f"{question.primary} against trainable parameters. The step line is the Pareto front; its cells are "
            f"named by {describe(question.rows).label}. {OVER_SEEDS}"
        )
        found.append(draw("pareto", caption, WIDE, plots.scatter, size, seen, True))
    if SOURCE_LOSS in trials and trials[SOURCE_LOSS].notna().any() and question.primary == "eval/loss":
        kept = observe(trials, question.shown, SOURCE_LOSS)
        caption = f"Forgetting ({SOURCE_LOSS}) against adaptation (eval/loss); lower left is better. {OVER_SEEDS}"
        found.append(draw("forgetting", caption, WIDE, plots.scatter, seen, kept))
    return found


def _of_cost(question: Question) -> list[Drawing]:
    found = []
    for metric in ("perf/step_ms", "perf/peak_memory_mb"):
        if metric in question.trials and question.trials[metric].notna().any():
            measured = observe(question.trials, question.shown, metric)
            notes = " ".join(note for note in measured.notes if note.startswith("Speed"))
            size = (6.0, 1.0 + 0.25 * min(20, len(measured.filled)))
            caption = f"{describe(metric).title} by cell. {notes}".strip()
            found.append(draw(metric.replace("/", "_"), caption, size, plots.bars, measured))
    return found


def _by(question: Question) -> str:
    return " and ".join(describe(factor).label for factor in question.shown)


def _plain(levels: Sequence[str]) -> int:
    return sum(level not in REFERENCES for level in levels)
