"""Numbers, verdicts and notes in plain English: the sentences of tables, reports and the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from analysis.columns import Column
from analysis.statistics.compare import Comparison
from analysis.statistics.confidence import INTERVAL_NAME
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, Summary, smallest_rank_p
from analysis.statistics.notes import Kind, Note
from analysis.statistics.observations import Cell, Observations
from sweep.text import named


def number(value: float, signed: bool = False) -> str:
    """Three significant digits, never an exponent for a number of everyday size."""
    if math.isnan(value):
        return "–"
    style = ".0f" if 1000 <= abs(value) < 1e7 else ".3g"
    text = f"{value:+{style}}" if signed else f"{value:{style}}"
    return text.replace("-", "−") if signed else text


def p_text(p: float) -> str:
    """A p value to three digits, ``<0.001`` below that: smaller ones say nothing more at a few seeds."""
    return "<0.001" if p < 0.001 else f"={number(p)}"


def mean_text(summary: Summary) -> str:
    """``1.316 ± 0.021 (n=5)``: as many decimals as give the half interval two digits."""
    if summary.n < 2 or not summary.half > 0:
        return f"{number(summary.mean)} (n={summary.n})"
    decimals = min(8, max(0, 1 - math.floor(math.log10(summary.half))))
    return f"{summary.mean:.{decimals}f} ± {summary.half:.{decimals}f} (n={summary.n})"


def sentence(item: Comparison, unit: str = "") -> str:
    """The verdict in words: ``not distinguishable (could have seen ≥ 0.012)``."""
    unit = f" {unit}" if unit else ""
    if item.verdict == "not distinguishable":
        return f"not distinguishable (could have seen ≥ {number(item.detectable)}{unit})"
    if item.verdict == "too few seeds":
        return f"nothing can be concluded from {item.difference.n} shared seed" + (
            "s" if item.difference.n != 1 else ""
        )
    if item.verdict == "no variation":
        same = item.difference.mean == 0
        return "identical at every seed" if same else "the same difference at every seed: the seeds vary nothing"
    return item.verdict


def verdict_text(observations: Observations, baseline: Cell, comparisons: Sequence[Comparison]) -> str:
    """About ten lines for a person: the baseline, one line a cell, and how the numbers were made."""
    metric = observations.metric
    base = observations.summary(baseline)
    unit = f" {metric.unit}" if metric.unit else ""
    better = f" ({metric.better} is better)" if metric.better else ""
    named_factors = ", ".join(observations.factors)
    lines = [f"{metric.name}{better} by {named_factors}, against {'/'.join(baseline)} = {mean_text(base)}{unit}"]
    width = max((len("/".join(item.cell)) for item in comparisons), default=0)
    for item in comparisons:
        d = item.difference
        p = f", p{p_text(item.p_holm)}, d={number(d.effect, True)}" if not math.isnan(item.p_holm) else ""
        interval = f" [{number(d.low, True)}, {number(d.high, True)}]" if d.n > 1 else ""
        lines.append(
            f"  {'/'.join(item.cell):<{width}}  {number(d.mean, True)}{interval} (n={d.n}{p}): "
            f"{sentence(item, metric.unit)}"
        )
    n = max((item.difference.n for item in comparisons), default=0)
    lines.append(
        f"Paired differences at equal seeds with {INTERVAL_NAME}s; d: in standard deviations of the differences.\n"
        f"Paired t test, Holm-corrected over "
        f"{len(comparisons)} comparison{'s' if len(comparisons) != 1 else ''}."
    )
    if n >= ENOUGH_SEEDS and smallest_rank_p(n) >= ALPHA:
        lines.append(f"A rank or sign-flip test could not go below p={number(smallest_rank_p(n))} at {n} seeds.")
    return "\n".join([*lines, *map(note_text, observations.notes)])


def marks_text(baseline: Sequence[str], comparisons: Sequence[Comparison]) -> str:
    """What the marks of a table mean, or that there are none."""
    base = " / ".join(baseline)
    how = f"paired t tests at equal seeds, Holm-corrected over {len(comparisons)} comparisons"
    if any(item.significant for item in comparisons):
        return f"* differs from {base} ({how}, p < {ALPHA})."
    return f"No cell is distinguishable from {base} ({how})."


def bold_text(any_bold: bool) -> str:
    """What bold means in a table, or why nothing is bold."""
    if any_bold:
        return "Bold: better than every other trained cell (paired t tests, Holm-corrected)."
    return "No cell is in bold: none is distinguishably better than every other."


def caption(metric: Column, sweep: str, where: Mapping[str, Sequence[str]]) -> str:
    """The caption of a table of ``metric``."""
    better = f", {metric.better} is better" if metric.better else ""
    only = "".join(f"; {factor} = {' or '.join(wanted)}" for factor, wanted in where.items())
    what = f"{metric.title} ({metric.name}{better})"
    return f"{what} of sweep {sweep}: mean ± {INTERVAL_NAME} over n seeds{only}."


def unfinished_text(missing: Sequence[str]) -> str:
    """Which trials are not in a table because they have no record."""
    shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    return f"{len(missing)} unfinished trials are not in the table: {shown}"


def note_text(note: Note) -> str:
    """The sentence of a note, marked where it weakens the conclusions."""
    return f"WARNING: {caveat(note)}" if note.is_warning else caveat(note)


def caveat(note: Note) -> str:
    """The sentence of a note."""
    return _SENTENCES[note.kind](**note.figures)


def _tuned(by: str | None, rate: str | None) -> str:
    criterion = f" by {by}" if by else ""
    same = f" ({rate} in every cell)" if rate is not None else ""
    return (
        f"Each cell is at its own best learning rate{criterion}, chosen for each half of the seeds on the other{same}."
    )


def _edge_of_the_grid(cells: Sequence[str], of: int) -> str:
    return (
        f"the best rate is at the edge of its grid in {len(cells)} of {of} cells "
        f"({named(cells, 3)}); a wider grid may change the comparison."
    )


def _not_tuned(rates: Sequence[str]) -> str:
    at = f"a single learning rate ({rates[0]})" if len(rates) == 1 else "one learning rate a cell"
    return f"cells are compared at {at}; a difference may vanish once the rate is tuned."


def _averaged(over: Sequence[tuple[str, int]]) -> str:
    sizes = ", ".join(f"{name} ({levels} levels)" for name, levels in over)
    return f"Each value is the mean over {sizes} at one seed."


def _few_seeds(seeds: int, enough: int) -> str:
    few = f"{seeds} seed" + ("s" if seeds > 1 else "")
    return f"{few} in the smallest cell; with fewer than {enough} nothing can be concluded."


def _pack_sizes(sizes: Sequence[str]) -> str:
    how = "trained alone" if list(sizes) == ["1"] else f"measured in packs of {named(sizes)} trials"
    mixed = "; cells of different pack size are not comparable" if len(sizes) > 1 else ""
    return f"Speed and memory are {how}{mixed}."


_SENTENCES: Mapping[Kind, Callable[..., str]] = {
    "references left out": lambda trials, kinds: (
        f"{trials} trials of kind {', '.join(kinds)} are left out: no factor here separates them."
    ),
    "tuned": _tuned,
    "tuned on itself": lambda cells: (
        f"{cells} cells have one seed, so their rate was chosen on the reported trial itself."
    ),
    "edge of the grid": _edge_of_the_grid,
    "not tuned": _not_tuned,
    "averaged": _averaged,
    "combinations left out": lambda values, factors: (
        f"{values} values are left out: not every cell has their {', '.join(factors)}."
    ),
    "seeds left out": lambda seeds: f"{seeds} seeds are left out of their cell: some of their trials did not finish.",
    "few seeds": _few_seeds,
    "lost": lambda diverged, failed, trials: (
        f"{diverged} diverged and {failed} failed trials of {trials} have no value; the mean is over the rest."
    ),
    "pruned": lambda trials: (
        f"{trials} trials were pruned early, against the others of their pack; they and their replicates have no value."
    ),
    "without a value": lambda trials, metric: f"{trials} finished trials have no {metric} and are left out.",
    "pack sizes": _pack_sizes,
    "no direction": lambda metric: (
        f"Whether a low or a high {metric} is better is not known: no cell is in bold, and no learning rate is tuned."
    ),
    "effects without a value": lambda trials, metric: f"{trials} trials without a value of {metric} are left out.",
    "no block": lambda: "One seed: there is no block, and the residual is the interactions left out.",
}
