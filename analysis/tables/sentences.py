"""The sentence of each kind of note."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from analysis.columns import describe
from analysis.statistics.confidence import Generalise
from analysis.statistics.notes import Kind, Note
from analysis.tables.numbers import listed, number, short_number, together_text
from sweep.metrics import instead_of_pack
from sweep.text import counted, named


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
        f"{named(cells, 4)} {'was' if len(cells) == 1 else 'were'} tried at {counted(tried, 'learning rate')}"
        for tried, cells in sorted(by_number.items())
    ]
    return f"tuning budgets are unequal: {'; '.join(parts)}. More rates favour a cell."


def _also_differ(factors: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> str:
    cells = list(dict.fromkeys(cell for levels in settings.values() for cell in levels))
    who = f"{' and '.join(cells)}" if len(cells) == 2 else f"cells ({named(cells, 4)})"
    asked = " and ".join(describe(factor).label for factor in factors)
    differ = listed([f"{name} ({_levels(levels.values())})" for name, levels in settings.items()])
    return (
        f"{asked} {who} also differ in {differ}: no verdict between cells that differ in more than {asked}. For a fair "
        f"comparison, train them with the same {listed(list(settings))}, or keep to trials that "
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
    return f"cells were trained on different {listed(parts)}; this may explain differences between them."


def _different_seeds(counts: Mapping[str, int], reference: str, shared: Sequence[tuple[str, int, float]]) -> str:
    rest = named([f"{cell}: {n}" for cell, n in counts.items()], 6)
    at = named(
        [f"{cell} − {reference} is {number(value, True)} at the {n} seeds of both" for cell, n, value in shared], 3
    )
    return f"cells rest on different seeds ({rest}), so their means are not directly comparable: {at}."


def _outlier(seeds: Sequence[tuple[str, str, float]]) -> str:
    shown = named([f"{cell}, seed {seed}: {short_number(value)}" for cell, seed, value in seeds], 4)
    return f"far from the other seeds of its cell: {shown}."


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
    sizes = ", ".join(f"{name} ({counted(levels, 'level')})" for name, levels in over)
    return f"Each value is the mean over {sizes} at one seed."


def _few_seeds(seeds: int, enough: int) -> str:
    return f"{counted(seeds, 'seed')} in the smallest cell; with fewer than {enough} nothing can be concluded."


def _of_packs(metric: str, sizes: Sequence[str]) -> str:
    which = f" of {named(sizes)} trials" if sizes else ""
    return f"this describes the packs{which}, not the trials in them; compare those by {instead_of_pack(metric)}."


def _generalises(to: Generalise, seeds: int, examples: int, clusters: int | None) -> str:
    each = f"{examples:,} examples" + (f" in {clusters:,} clusters" if clusters is not None else "")
    match to:
        case "both":
            what = f"new seeds and new examples ({seeds} seeds × {each})"
        case "seeds":
            what = f"new seeds only ({seeds} seeds, on the same {each})"
        case "examples":
            what = f"new examples only ({each}, for the same {seeds} seeds)"
    return f"Verdicts generalise to {what}; ± is over seeds, on these examples."


def _better_earlier(metric: str, cells: Sequence[tuple[str, int, int, float, int]]) -> str:
    parts = [
        f"{cell} in {better} of {seeds} seeds, by {number(by)} at step {step:,}"
        for cell, better, seeds, by, step in cells
    ]
    return (
        f"the end is not the best of the curve: {metric} was better earlier for {'; '.join(parts[:4])}"
        f"{f'; and {len(parts) - 4} more cells' if len(parts) > 4 else ''}. training.keep=best keeps each trial's best."
    )


_SENTENCES: Mapping[Kind, Callable[..., str]] = {
    "references left out": lambda trials, kinds: (
        f"Left out: {counted(trials, 'trial')} of kind {', '.join(kinds)}, which no factor here distinguishes."
    ),
    "tuned": _tuned,
    "tuned on itself": lambda cells: (
        f"the rate was chosen on the reported trial itself in {counted(cells, 'cell')} with one seed."
    ),
    "edge of the grid": _edge_of_the_grid,
    "not tuned": _not_tuned,
    "averaged": _averaged,
    "combinations left out": lambda values, factors: (
        f"Left out: {counted(values, 'value')} at {', '.join(factors)} that not every cell has."
    ),
    "seeds left out": lambda seeds: (
        f"Left out of their cell: {counted(seeds, 'seed')}, for which some trial has no value."
    ),
    "few seeds": _few_seeds,
    "lost": lambda diverged, failed, trials: (
        f"{diverged} diverged and {failed} failed trials of {trials} have no value; the mean is over the rest."
    ),
    "pruned": lambda trials: (
        f"Pruned early, in comparison with others of their pack: {counted(trials, 'trial')}; pruned trials and their replicates have no value."
    ),
    "without a value": lambda trials, metric: f"Left out: {counted(trials, 'finished trial')} without {metric}.",
    "of packs": _of_packs,
    "no direction": lambda metric: (
        f"Whether a low or a high {metric} is better is not known: no cell is in bold, and no learning rate is tuned."
    ),
    "effects without a value": lambda trials, metric: (
        f"Left out: {counted(trials, 'trial')} without a value of {metric}."
    ),
    "unbalanced": lambda: (
        "Trials were lost, so the effects overlap: shares are of the total of all sums of squares, not of the variance."
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
    "generalises": _generalises,
    "seeds only": lambda metric: (
        f"Verdicts generalise to new seeds only, on the same examples: the trials share no scores of single examples for {metric}."
    ),
    "scores left out": lambda problems: f"scores of examples are left out: {named(problems, 3)}.",
    "shared examples": lambda examples: (
        f"trials were scored on different examples: values and verdicts are on the {examples:,} that all of them share."
    ),
    "evaluated": lambda metric, examples: (
        f"{metric} is what python -m sweep evaluate scored on {examples:,} examples, in place of the records' own."
    ),
    "partly evaluated": lambda evaluated, trials: (
        f"{evaluated} of {trials} compared trials were scored by python -m sweep evaluate; the records' own scores are used for all."
    ),
    "better earlier": _better_earlier,
    "no block": lambda: "With one seed there is no block, and the residual consists of the interactions left out.",
}
