"""The first paragraphs of a report: what was asked, what was found, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.columns import RATIO, describe
from analysis.sources.sweep import Sweep
from analysis.statistics.compare import Comparison, clear_best
from analysis.statistics.effects import Effects
from analysis.statistics.intervals import ENOUGH_SEEDS
from analysis.statistics.levels import REFERENCES, labels, ordered
from analysis.statistics.questions import Question
from analysis.tables.wording import mean_text, number, sentence
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
        parts.append(f"{describe(factor).label} ({named(levels, 8)})")
    metric = question.column(question.primary)
    seeds = len(question.seeds)
    return (
        f"How does {metric.label} on {question.task} depend on {_listed(parts)}? "
        f"{len(question.trials)} trials, {seeds} seed{'s' if seeds != 1 else ''}."
    )


def findings(question: Question, comparisons: Mapping[str, Sequence[Comparison]], explained: Effects | None) -> str:
    """What the numbers say: the best cell, the verdict on each factor, and what explains the variance."""
    observations = question.observe(question.shown)
    cells = [cell for cell in observations.filled if cell[0] not in REFERENCES]
    lines = []
    if cells and observations.metric.better:
        best = min(cells, key=lambda cell: observations.summary(cell).mean * observations.metric.sign)
        summary = observations.summary(best)
        at = _listed([f"{describe(f).label} {level}" for f, level in zip(question.shown, best, strict=True)])
        word = "lowest" if observations.metric.better == "lower" else "highest"
        lines.append(
            f"The {word} mean {observations.metric.label} among the LoRA cells is "
            f"{mean_text(summary)} at {at}{_ratio(question, best)}"
            + (_distinct(clear_best(observations, cells) == best, summary.n) if len(cells) > 1 else ".")
        )
    for factor, compared in comparisons.items():
        lines.append(_verdicts(factor, compared))
    if explained and len(explained.effects) > 1:
        shares = [f"{_source(e.source)} {100 * e.share:.0f}%" for e in explained.effects if e.share >= 0.01][:4]
        if shares:
            lines.append(f"Share of the variance between LoRA trials: {', '.join(shares)}.")
    return " ".join(line for line in lines if line)


def certainty(comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """How the comparisons were made, and how many seeds they rest on."""
    sizes = [item.difference.n for compared in comparisons.values() for item in compared]
    if not sizes:
        return "Nothing was compared, so nothing can be concluded about a difference."
    few = min(sizes)
    if few < ENOUGH_SEEDS:
        return (
            f"Some comparisons rest on {few} shared seed{'s' if few != 1 else ''}: "
            "from fewer than three nothing can be concluded."
        )
    family = ", ".join(f"{len(compared)} for {describe(f).label}" for f, compared in comparisons.items() if compared)
    return (
        f"Differences are paired by seed (n={few}{'' if few == max(sizes) else f'–{max(sizes)}'}), tested by paired t tests, "
        f"and Holm-corrected over the comparisons of one factor ({family})."
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
        kind = item.verdict
        if kind in ("better", "worse", "different"):
            shown = f"{item.cell[0]} ({number(item.difference.mean, True)})"
        elif kind == "not distinguishable":
            shown = f"{item.cell[0]} (could have seen ≥ {number(item.detectable)})"
        else:
            shown = item.cell[0]
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


def _distinct(clear: bool, n: int) -> str:
    if n < ENOUGH_SEEDS:
        return "; with so few seeds this ranks nothing."
    return (
        "; it is distinguishable from every other LoRA cell."
        if clear
        else "; it is not distinguishable from every other LoRA cell."
    )


def _source(name: str) -> str:
    return " × ".join(describe(part).label for part in name.split(" × "))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
