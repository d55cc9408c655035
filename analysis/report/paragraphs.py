"""The first paragraphs of a report: what was asked, what was found, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.columns import RATIO, describe
from analysis.sources.sweep import Sweep
from analysis.statistics.best import best_of
from analysis.statistics.compare import Comparison, first, ranking
from analysis.statistics.effects import Effects
from analysis.statistics.intervals import ENOUGH_SEEDS
from analysis.statistics.levels import REFERENCES, labels, ordered
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.questions import Question
from analysis.statistics.settings import together
from analysis.tables.numbers import listed, mean_text, number, together_text
from analysis.tables.wording import HOW, QUALIFIED, ask_text, dependence_text, generalised, lost_text, sentence
from sweep.text import named


def counted(sweep: Sweep) -> str:
    """How many trials there are and how they ended: ``80 trials: 78 finished, 2 diverged``."""
    counts = {status: n for status, n in sweep.counts.items() if n}
    total = sum(counts.values())
    unfinished = f" (unfinished: {named(sweep.missing, 3)})" if sweep.missing else ""
    shown = ", ".join(f"{n} {status}" for status, n in counts.items())
    return f"{total} trial{'s' if total != 1 else ''}: {shown}{unfinished}."


def question_text(question: Question) -> str:
    """The question as a sentence, with the levels that were tried."""
    parts = []
    for factor in question.factors:
        levels = [level for level in ordered(labels(question.trials, factor)) if level not in REFERENCES]
        moves = together(question.trials, (factor,))
        label = together_text(moves) if moves else describe(factor).label
        parts.append(f"{label} ({named(levels, 8)})")
    metric = question.column(question.primary)
    seeds = len(question.seeds)
    return (
        f"How does {metric.label} on {question.task} depend on {listed(parts)}? "
        f"{len(question.trials)} trials, {seeds} seed{'s' if seeds != 1 else ''}."
    )


def findings(question: Question, comparisons: Mapping[str, Sequence[Comparison]], explained: Effects | None) -> str:
    """What the numbers say: the best cell, the verdict on each factor, and what explains the variance."""
    observations = question.observe(question.shown)
    cells = [cell for cell in observations.filled if cell[0] not in REFERENCES]
    lines = []
    if cells and observations.metric.better:
        lines.append(_best(question, observations, cells))
    for factor, compared in comparisons.items():
        lines += [_verdicts(factor, compared), *ask_text(compared)]
    if explained and len(explained.effects) > 1:
        shares = [f"{_source(e.source)} {100 * e.share:.0f}%" for e in explained.effects if e.share >= 0.01][:4]
        if shares:
            lines.append(f"Share of the variance between LoRA trials: {', '.join(shares)}.")
    return " ".join(line for line in lines if line)


def _best(question: Question, observations: Observations, cells: Sequence[Cell]) -> str:
    """The best LoRA cell, evaluated on seeds that did not choose it."""
    best = best_of(observations, cells)
    word = "lowest" if observations.metric.better == "lower" else "highest"
    text = (
        f"The {word} mean {observations.metric.label} among the LoRA cells is "
        f"{mean_text(best.summary)} at {_cell_text(question, best.cell)}{_ratio(question, best.cell)}"
    )
    if len(cells) == 1:
        return f"{text}."
    if len(best.chosen) > 1:
        text += (
            ", chosen on each half of the seeds and evaluated on the other (the halves chose "
            f"{'; '.join(_cell_text(question, cell) for cell in best.chosen)})"
        )
    elif not best.peeked:
        text += ", which both halves of the seeds chose"
    return text + _distinct(ranking(observations, cells), best.summary.n)


def _cell_text(question: Question, cell: Cell) -> str:
    return listed([f"{describe(f).label} {level}" for f, level in zip(question.shown, cell, strict=True)])


def certainty(comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """How the comparisons were made, and how many seeds they rest on."""
    compared = [item for of_factor in comparisons.values() for item in of_factor]
    sizes = [item.difference.n for item in compared]
    if not sizes:
        return "Nothing was compared, so nothing can be concluded about a difference."
    few = min(sizes)
    if not any(sizes):
        return "The cells share no seed, so nothing is paired, and nothing can be concluded."
    if few < ENOUGH_SEEDS and generalised(compared) != "examples":
        return (
            f"Some comparisons rest on {few} shared seed{'s' if few != 1 else ''}: "
            "from fewer than three nothing can be concluded."
        )
    family = ", ".join(f"{len(these)} for {describe(f).label}" for f, these in comparisons.items() if these)
    return (
        f"Differences are paired by seed (n={few}{'' if few == max(sizes) else f'–{max(sizes)}'}), tested by "
        f"{HOW[generalised(compared)]}, and Holm-corrected over the comparisons of one factor ({family})."
    )


def _verdicts(factor: str, compared: Sequence[Comparison]) -> str:
    lora = [item for item in compared if item.cell[0] not in REFERENCES]
    text = _grouped(factor, lora)
    full = next((item for item in compared if item.cell[0] == "full"), None)
    if full is not None and factor == "adapter.rank":
        text += f" Full fine-tuning against rank {full.baseline[0]}: {sentence(full)} ({number(full.difference.mean, True)})."
    return text


def _grouped(factor: str, compared: Sequence[Comparison]) -> str:
    if not compared:
        return ""
    groups: dict[str, list[str]] = {}
    for item in compared:
        kind: str = item.verdict
        if kind in ("better", "worse", "different"):
            shown = f"{item.cell[0]} ({number(item.difference.mean, True)})"
        elif kind == "not distinguishable":
            shown = f"{item.cell[0]} (could have seen ≥ {number(item.detectable)})"
        elif kind == "equivalent":
            shown = f"{item.cell[0]} (within ±{item.within:g})"
        elif kind == "depends":
            kind, shown = "no verdict", f"{item.cell[0]} {dependence_text(item)}"
        elif kind in ("refused", "no shared seed"):
            kind, shown = "no verdict", f"{item.cell[0]} ({sentence(item).removeprefix('no verdict: ')})"
        else:
            shown = item.cell[0]
        if item.lost.diverged:
            shown += f" ({lost_text(item.lost)})"
        groups.setdefault(kind, []).append(shown)
    verdicts = "; ".join(f"{kind}: {named(shown, 6)}" for kind, shown in groups.items())
    return f"Against {describe(factor).label} {compared[0].baseline[0]} — {verdicts}."


def _ratio(question: Question, cell: Sequence[str]) -> str:
    if RATIO not in question.trials:
        return ""
    chosen = question.trials
    for factor, level in zip(question.shown, cell, strict=True):
        chosen = chosen[labels(chosen, factor) == level]
    values = chosen[RATIO].dropna().unique()
    return f", {100 * values[0]:.3g}% of the parameters trainable" if len(values) == 1 else ""


def _distinct(compared: Sequence[Comparison], n: int) -> str:
    if n < ENOUGH_SEEDS:
        return "; so few seeds give no ranking."
    if any(item.verdict == "refused" for item in compared):
        return "; cells that differ in more than was asked are not ranked."
    if any(item.verdict in QUALIFIED for item in compared):
        return "; it is not unconditionally better than every other LoRA cell."
    if first(compared):
        return "; it is distinguishable from every other LoRA cell."
    return "; it is not distinguishable from every other LoRA cell."


def _source(name: str) -> str:
    return " × ".join(describe(part).label for part in name.split(" × "))
