"""Verdicts in plain English: the sentences of tables, reports and the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis.columns import Column, describe
from analysis.statistics.compare import Comparison, Lost
from analysis.statistics.confidence import INTERVAL_NAME, Generalise
from analysis.statistics.crossed import needed
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, smallest_rank_p
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.settings import Difference
from analysis.tables.numbers import listed, mean_text, number, p_text, rounded_up, together_text
from analysis.tables.sentences import note_text
from sweep.text import counted, named

MOST_LEVELS = 4
MOST_TEXTS = 6
UNTESTED = ("refused", "no shared seed")
HOW: Mapping[Generalise, str] = {
    "seeds": "paired t tests",
    "examples": "paired t tests over examples",
    "both": "paired tests over seeds and examples",
}
"""How comparisons were tested, by what they generalise to."""
QUALIFIED = ("better where it converges", "worse where the baseline converges", "depends")
"""Verdicts that hold under a condition only."""


def sentence(item: Comparison, unit: str = "") -> str:
    """The verdict in words: ``not distinguishable (could have seen ≥ 0.012)``."""
    text = _verdict_words(item, f" {unit}" if unit else "")
    if item.verdict not in ("better where it converges", "refused") and item.lost.diverged:
        text += f"; {lost_text(item.lost)}"
    if item.verdict != "refused" and item.lost_baseline.diverged:
        text += f"; of the baseline {lost_text(item.lost_baseline)}"
    if item.verdict != "refused" and item.environments:
        text += f" (WARNING: trained on different {listed([_environment(one) for one in item.environments])})"
    return text


def _verdict_words(item: Comparison, unit: str) -> str:
    match item.verdict:
        case "refused":
            differ = listed([f"{one.name} ({one.baseline}, {one.cell})" for one in item.also_differ])
            return f"no verdict: {'/'.join(item.baseline)} and {'/'.join(item.cell)} also differ in {differ}"
        case "depends":
            return dependence_text(item)
        case "not distinguishable":
            return f"not distinguishable (could have seen ≥ {number(item.detectable)}{unit})"
        case "better where it converges":
            return f"better where it converges; {lost_text(item.lost)}"
        case "equivalent":
            return f"equivalent ({_within(item, unit)})"
        case "no shared seed" if item.unpaired is not None:
            apart = item.unpaired
            interval = f" [{number(apart.low, True)}, {number(apart.high, True)}]" if not math.isnan(apart.low) else ""
            return (
                "no verdict: the cells share no seed, so nothing is paired; unpaired difference "
                f"{number(apart.mean, True)}{interval} (Welch)"
            )
        case "too few seeds":
            shared = item.difference.n
            return f"nothing can be concluded from {counted(shared, 'shared seed')}"
        case "no variation":
            same = item.difference.mean == 0
            return "identical at every seed" if same else "the same difference at every seed: seeds have no effect"
    text: str = item.verdict + (f", {_within(item, unit)}" if item.within is not None else "")
    return text + (f" at every level, but {dependence_text(item)}" if item.dependence is not None else "")


def _within(item: Comparison, unit: str) -> str:
    return f"within ±{item.within:g}{unit}"


def lost_text(lost: Lost) -> str:
    """How many seeds of a cell diverged: ``3 of 8 diverged``."""
    return f"{lost.diverged} of {lost.seeds} diverged"


def dependence_text(item: Comparison) -> str:
    """``depends on rank: −0.099 at 1, +0.097 at 8``; of many levels the two that differ most."""
    assert item.dependence is not None
    shown = item.dependence.differences
    if len(shown) > MOST_LEVELS:
        extremes = {min(shown, key=lambda pair: pair[1]), max(shown, key=lambda pair: pair[1])}
        shown = tuple(pair for pair in shown if pair in extremes)
    at = ", ".join(f"{number(value, True)} at {level}" for level, value in shown)
    return f"depends on {describe(item.dependence.factor).label}: {at}"


def _environment(item: Difference) -> str:
    return f"{item.name.removeprefix('environment.')} ({item.baseline}, {item.cell})"


def verdict_text(observations: Observations, baseline: Cell, comparisons: Sequence[Comparison]) -> str:
    """About ten lines for a person: the baseline, one line a cell, and how the numbers were made."""
    metric = observations.metric
    base = observations.summary(baseline)
    unit = f" {metric.unit}" if metric.unit else ""
    better = f" ({metric.better} is better)" if metric.better else ""
    named_factors = ", ".join(observations.factors)
    if observations.together is not None:
        named_factors += f", {together_text(observations.together)}"
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
    return "\n".join([*lines, *how_texts(observations, comparisons)])


def how_texts(observations: Observations, comparisons: Sequence[Comparison]) -> list[str]:
    """How comparisons were made, what would make them sharper, and the notes on what they rest on."""
    n = max((item.difference.n for item in comparisons), default=0)
    tested = sum(item.verdict not in UNTESTED for item in comparisons)
    texts = [
        f"Paired differences at equal seeds with {INTERVAL_NAME}s; d: in standard deviations of the differences.",
        f"{tested_text(comparisons)}, Holm-corrected over {counted(tested, 'comparison')}.",
        bottleneck_text(observations, comparisons),
    ]
    if n >= ENOUGH_SEEDS and smallest_rank_p(n) >= ALPHA:
        texts.append(f"A rank or sign-flip test could not go below p={number(smallest_rank_p(n))} at {n} seeds.")
    return [text for text in (*texts, *ask_text(comparisons), *map(note_text, observations.notes)) if text]


def tested_text(comparisons: Sequence[Comparison]) -> str:
    """How the comparisons were tested, at the beginning of a sentence."""
    match generalised(comparisons):
        case "seeds":
            return "Paired t test"
        case "examples":
            return "Paired t test over examples"
        case "both":
            return (
                "p is the larger of a paired t test over seeds and a test with seeds and examples as crossed random "
                "effects, the interval the wider"
            )


def generalised(comparisons: Sequence[Comparison]) -> Generalise:
    """What ``comparisons`` generalise to, which is the same for all of one question."""
    return next((item.generalise for item in comparisons), "seeds")


def bottleneck_text(observations: Observations, comparisons: Sequence[Comparison]) -> str:
    """Whether more examples or more seeds would halve the typical interval; empty without scores of examples."""
    layouts = [item.layout for item in comparisons if item.layout is not None and item.verdict not in UNTESTED]
    found = needed(layouts)
    if found is None:
        return ""
    clustered = observations.scored is not None and observations.scored.sheet.clustered
    unit = "clusters of examples" if clustered else "examples"
    examples = f"{rounded_up(found.examples):,} {unit}" if found.examples else ""
    seeds = counted(found.seeds, "seed") if found.seeds else ""
    if examples and seeds:
        text = f"{seeds} or {examples} would halve the interval of a typical difference"
    elif examples:
        text = f"Examples are the bottleneck: {examples} would halve the interval of a typical difference; more seeds would not"
    elif seeds:
        text = f"Seeds are the bottleneck: {seeds} would halve the interval of a typical difference; more examples would not"
    else:
        text = "Only more seeds and more examples together would halve the interval of a typical difference"
    return f"{text} (by the mean squares of seeds and examples)."


def equivalent_text(comparisons: Sequence[Comparison]) -> str:
    """Which cells are equivalent to their baseline within the margin; empty where none is."""
    cells = [item for item in comparisons if item.verdict == "equivalent"]
    if not cells:
        return ""
    names = named(["/".join(item.cell) for item in cells], MOST_TEXTS)
    return f"Equivalent to {'/'.join(cells[0].baseline)} within ±{cells[0].within:g}: {names} (two one-sided tests, Holm-corrected)."


def marks_text(baseline: Sequence[str], comparisons: Sequence[Comparison]) -> str:
    """What the marks of a table mean, or that there are none."""
    base = " / ".join(baseline)
    tested = [item for item in comparisons if item.verdict not in UNTESTED]
    if not tested:
        return f"No cell can be compared with {base}."
    how = f"{HOW[generalised(tested)]} at equal seeds, Holm-corrected over {counted(len(tested), 'comparison')}"
    if any(item.significant for item in comparisons):
        return f"* differs from {base} ({how}, p < {ALPHA})."
    if any(item.verdict in QUALIFIED for item in tested):
        return f"No cell differs unconditionally from {base} ({how})."
    return f"No cell is distinguishable from {base} ({how})."


def qualified_texts(comparisons: Sequence[Comparison]) -> list[str]:
    """Notes on cells whose verdict needs more words than a mark."""
    texts = [
        f"{'/'.join(item.cell)} against {'/'.join(item.baseline)}: {sentence(item)}."
        for item in comparisons
        if item.verdict in QUALIFIED
    ]
    hidden = len(texts) - MOST_TEXTS
    more = [f"… and {hidden} more cells like these."] if hidden > 0 else []
    return [*texts[:MOST_TEXTS], *more, *ask_text(comparisons)]


def ask_text(comparisons: Sequence[Comparison]) -> list[str]:
    """Which table to ask for where a verdict depends on a factor that was averaged over."""
    factors = dict.fromkeys(
        item.dependence.factor for item in comparisons if item.dependence and item.verdict == "depends"
    )
    return [
        f"The average over {describe(factor).label} gives no verdict here: use --columns {factor}, or one level with "
        f"--where {factor}=LEVEL."
        for factor in factors
    ]


def bold_text(compared: Sequence[Comparison], is_bold: bool) -> str:
    """What bold means in a table, or why nothing is bold; ``compared``: the best cell with each other one."""
    if is_bold:
        return f"Bold: better than every other trained cell ({HOW[generalised(compared)]}, Holm-corrected)."
    if any(item.verdict == "refused" for item in compared):
        return "No cell is in bold: cells that differ in more than was asked are not ranked."
    if any(item.verdict == "no shared seed" for item in compared):
        return "No cell is in bold: cells without a seed in common are not ranked."
    qualified = [item for item in compared if item.verdict in QUALIFIED]
    if qualified and all(item.significant or item in qualified for item in compared):
        item = qualified[0]
        return f"No cell is in bold: {'/'.join(item.cell)} against {'/'.join(item.baseline)}: {sentence(item)}."
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
    return f"{counted(len(missing), 'unfinished trial')} not in the table: {shown}"
