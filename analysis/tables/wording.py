"""Numbers, verdicts and notes in plain English: the sentences of tables, reports and the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from analysis.columns import Column, describe
from analysis.statistics.compare import Comparison, Lost
from analysis.statistics.confidence import INTERVAL_NAME
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, Summary, smallest_rank_p
from analysis.statistics.notes import Kind, Note
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.settings import Difference, Together
from sweep.metrics import instead_of_pack
from sweep.text import named

TINY, HUGE = 1e-4, 1e7
"""Means and intervals outside these are written with an exponent."""
FLOAT_NOISE = 1e-9
MOST_DECIMALS = 8
MOST_LEVELS = 4
MOST_TEXTS = 6
UNTESTED = ("refused", "no shared seed")
QUALIFIED = ("better where it converges", "worse where the baseline converges", "depends")
"""Verdicts that hold under a condition only."""


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
        case "no shared seed" if item.unpaired is not None:
            apart = item.unpaired
            interval = f" [{number(apart.low, True)}, {number(apart.high, True)}]" if not math.isnan(apart.low) else ""
            return (
                "no verdict: the cells share no seed, so nothing is paired; unpaired difference "
                f"{number(apart.mean, True)}{interval} (Welch)"
            )
        case "too few seeds":
            shared = item.difference.n
            return f"nothing can be concluded from {shared} shared seed" + ("s" if shared != 1 else "")
        case "no variation":
            same = item.difference.mean == 0
            return "identical at every seed" if same else "the same difference at every seed: the seeds vary nothing"
    return item.verdict + (f" at every level, but {dependence_text(item)}" if item.dependence is not None else "")


def lost_text(lost: Lost) -> str:
    """How many seeds of a cell diverged: ``3 of 8 diverged``."""
    return f"{lost.diverged} of {lost.seeds} diverged"


def dependence_text(item: Comparison) -> str:
    """``depends on rank: −0.099 at 1, +0.097 at 8``; of many levels the two that differ most."""
    if item.dependence is None:
        return ""
    shown = item.dependence.differences
    if len(shown) > MOST_LEVELS:
        extremes = {min(shown, key=lambda pair: pair[1]), max(shown, key=lambda pair: pair[1])}
        shown = tuple(pair for pair in shown if pair in extremes)
    at = ", ".join(f"{number(value, True)} at {level}" for level, value in shown)
    return f"depends on {describe(item.dependence.factor).label}: {at}"


def together_text(moves: Together) -> str:
    """``rank together with alpha (alpha = 2·rank)``."""
    asked, follower = describe(moves.asked).label, describe(moves.follower).label
    return f"{asked} together with {follower} (alpha = {moves.ratio:g}·rank)"


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


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
    n = max((item.difference.n for item in comparisons), default=0)
    tested = sum(item.verdict not in UNTESTED for item in comparisons)
    lines.append(
        f"Paired differences at equal seeds with {INTERVAL_NAME}s; d: in standard deviations of the differences.\n"
        f"Paired t test, Holm-corrected over "
        f"{tested} comparison{'s' if tested != 1 else ''}."
    )
    if n >= ENOUGH_SEEDS and smallest_rank_p(n) >= ALPHA:
        lines.append(f"A rank or sign-flip test could not go below p={number(smallest_rank_p(n))} at {n} seeds.")
    return "\n".join([*lines, *ask_text(comparisons), *map(note_text, observations.notes)])


def marks_text(baseline: Sequence[str], comparisons: Sequence[Comparison]) -> str:
    """What the marks of a table mean, or that there are none."""
    base = " / ".join(baseline)
    tested = [item for item in comparisons if item.verdict not in UNTESTED]
    if not tested:
        return f"No cell can be compared with {base}."
    how = f"paired t tests at equal seeds, Holm-corrected over {len(tested)} comparisons"
    if any(item.significant for item in comparisons):
        return f"* differs from {base} ({how}, p < {ALPHA})."
    if any(item.verdict in QUALIFIED for item in tested):
        return f"No cell differs from {base} without a condition ({how})."
    return f"No cell is distinguishable from {base} ({how})."


def qualified_texts(comparisons: Sequence[Comparison]) -> list[str]:
    """What is said of cells that have no plain verdict although there is more to say than a mark can."""
    texts = [
        f"{'/'.join(item.cell)} against {'/'.join(item.baseline)}: {sentence(item)}."
        for item in comparisons
        if item.verdict in QUALIFIED
    ]
    if hidden := len(texts) - MOST_TEXTS:
        texts = texts[:MOST_TEXTS] + ([f"… and {hidden} more cells like these."] if hidden > 0 else [])
    return [*texts, *ask_text(comparisons)]


def ask_text(comparisons: Sequence[Comparison]) -> list[str]:
    """Which table answers where a verdict depends on a factor that was averaged over."""
    factors = dict.fromkeys(
        item.dependence.factor for item in comparisons if item.dependence and item.verdict == "depends"
    )
    return [
        f"An average over {describe(factor).label} is no verdict here: ask with --columns {factor}, or at one level with "
        f"--where {factor}=LEVEL."
        for factor in factors
    ]


def bold_text(compared: Sequence[Comparison], is_bold: bool) -> str:
    """What bold means in a table, or why nothing is bold; ``compared``: the best cell with each other one."""
    if is_bold:
        return "Bold: better than every other trained cell (paired t tests, Holm-corrected)."
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


def _unequal_budgets(rates: Mapping[str, int]) -> str:
    by_number: dict[int, list[str]] = {}
    for cell, tried in rates.items():
        by_number.setdefault(tried, []).append(cell)
    parts = [
        f"{named(cells, 4)} {'was' if len(cells) == 1 else 'were'} tried at {tried} learning rate{'s' * (tried > 1)}"
        for tried, cells in sorted(by_number.items())
    ]
    return f"the budgets of tuning are unequal: {'; '.join(parts)}. More rates favour a cell."


def _also_differ(factors: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> str:
    cells = list(dict.fromkeys(cell for levels in settings.values() for cell in levels))
    who = f"{' and '.join(cells)}" if len(cells) == 2 else f"cells ({named(cells, 4)})"
    asked = " and ".join(describe(factor).label for factor in factors)
    differ = listed([f"{name} ({_levels(levels.values())})" for name, levels in settings.items()])
    return (
        f"{asked} {who} also differ in {differ}: no verdict between cells that differ in more than {asked}. For a fair "
        f"question train them with the same {listed(list(settings))}, or keep to trials that "
        "share them (--where FACTOR=LEVEL)."
    )


def _levels(levels: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(levels))


def _environments(settings: Mapping[str, Mapping[str, str]]) -> str:
    parts = [
        f"{name.removeprefix('environment.')} ("
        + named([f"{cell}: {level}" for cell, level in levels.items()], 4)
        + ")"
        for name, levels in settings.items()
    ]
    return f"cells were trained on different {listed(parts)}; what differs between them may come from there."


def _different_seeds(counts: Mapping[str, int], reference: str, shared: Sequence[tuple[str, int, float]]) -> str:
    rest = named([f"{cell}: {n}" for cell, n in counts.items()], 6)
    at = named(
        [f"{cell} − {reference} is {number(value, True)} at the {n} seeds of both" for cell, n, value in shared], 3
    )
    return f"cells rest on different seeds ({rest}), so their means are not comparable as they stand: {at}."


def _outlier(seeds: Sequence[tuple[str, str, float]]) -> str:
    shown = named([f"{cell}, seed {seed}: {short_number(value)}" for cell, seed, value in seeds], 4)
    return f"far from the other seeds of its cell: {shown}."


def short_number(value: float) -> str:
    """Two digits at least: ``9.0``, ``0.45``, ``9.4e23``."""
    if value and not TINY <= abs(value) < HUGE:
        return exponent(value, 1)
    return f"{value:#.2g}" if abs(value) < 100 else number(value)


def _worse_than_the_base(cells: Sequence[str]) -> str:
    one = len(cells) == 1
    return f"{'this cell' if one else 'these cells'} ended worse than the untouched base: {named(cells, 6)}."


def _edge_of_the_grid(cells: Sequence[str], of: int) -> str:
    return (
        f"the best rate is at the edge of its grid in {len(cells)} of {of} cells "
        f"({named(cells, 3)}); a wider grid may change the comparison."
    )


def _not_tuned(rates: Sequence[str]) -> str:
    at = f"a single learning rate ({rates[0]})" if len(rates) == 1 else "one learning rate a cell"
    return f"cells are compared at {at}; a difference may vanish once the rate is tuned."


def _averaged(over: Sequence[tuple[str, int]]) -> str:
    sizes = ", ".join(f"{name} ({levels} level{'s' * (levels != 1)})" for name, levels in over)
    return f"Each value is the mean over {sizes} at one seed."


def _few_seeds(seeds: int, enough: int) -> str:
    few = f"{seeds} seed" + ("s" if seeds > 1 else "")
    return f"{few} in the smallest cell; with fewer than {enough} nothing can be concluded."


def _of_packs(metric: str, sizes: Sequence[str]) -> str:
    which = f" of {named(sizes)} trials" if sizes else ""
    return f"this is of the packs{which} in which the trials trained, so it compares none of them; see {instead_of_pack(metric)}."


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
    "seeds left out": lambda seeds: f"{seeds} seeds are left out of their cell: some of their trials have no value.",
    "few seeds": _few_seeds,
    "lost": lambda diverged, failed, trials: (
        f"{diverged} diverged and {failed} failed trials of {trials} have no value; the mean is over the rest."
    ),
    "pruned": lambda trials: (
        f"{trials} trials were pruned early, against the others of their pack; they and their replicates have no value."
    ),
    "without a value": lambda trials, metric: f"{trials} finished trials have no {metric} and are left out.",
    "of packs": _of_packs,
    "no direction": lambda metric: (
        f"Whether a low or a high {metric} is better is not known: no cell is in bold, and no learning rate is tuned."
    ),
    "effects without a value": lambda trials, metric: f"{trials} trials without a value of {metric} are left out.",
    "unbalanced": lambda: (
        "Trials were lost, so the effects overlap: shares are of the sum of all sums of squares, not of the variance."
    ),
    "together": lambda moves: f"Cells differ in {together_text(moves)}: a verdict is about both.",
    "also differ": _also_differ,
    "environments": _environments,
    "unequal budgets": _unequal_budgets,
    "no shared seed": lambda: (
        "the cells share no seed, so nothing is paired; give them the same seeds (seed=0,1,2) for a verdict."
    ),
    "different seeds": _different_seeds,
    "outlier": _outlier,
    "worse than the base": _worse_than_the_base,
    "no block": lambda: "One seed: there is no block, and the residual is the interactions left out.",
}
