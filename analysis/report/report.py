"""Writes ``report/`` beside the trials: one page to mail, the tables for a paper, the figures, the sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from analysis.columns import LEARNING_RATE
from analysis.errors import BadRequestError
from analysis.figures.figures import Drawing, figures
from analysis.report import page
from analysis.report.questions import Question, questions
from analysis.sources.load import Sweep
from analysis.statistics.cells import observe
from analysis.statistics.compare import Comparison, against, compare, verdict_text
from analysis.statistics.effects import Effects, effects
from analysis.tables import formats, wording
from analysis.tables.table import Table, build
from sweep import record
from sweep.files import replace_file

T = TypeVar("T")


@dataclass
class Answer:
    """Everything the report says about one question; ``gaps`` are the parts that the records cannot answer."""

    question: Question
    tables: list[Table] = field(default_factory=list)
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)
    effects: Effects | None = None
    drawings: list[Drawing] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def caveats(self) -> list[str]:
        """The warnings of its tables, each once, then the gaps."""
        notes = [note for table in self.tables[:1] for note in table.notes]
        return [*wording.caveats(notes), *self.gaps]


def answer(sweep: Sweep, question: Question) -> Answer:
    """Tables, comparisons, effects and figures of one question; a part that cannot be made becomes a gap."""
    result = Answer(question)
    part = Sweep(sweep.name, question.trials, sweep.history, sweep.missing, sweep.problems, sweep.folder)
    baseline = (question.baseline(question.rows),)

    def attempt(make: Callable[..., T], *given: Any) -> T | None:
        try:
            return make(*given)
        except BadRequestError as error:
            if str(error) not in result.gaps:
                result.gaps.append(str(error))
            return None

    wanted = [(question.rows, question.columns, metric) for metric in (question.primary, *question.secondary)]
    wanted += [(factor, None, question.primary) for factor in question.factors[2:]]
    if question.tuned:
        wanted.append((LEARNING_RATE, question.rows, question.primary))
    for rows, columns, metric in wanted:
        table = attempt(_table, part, rows, columns, metric, baseline if rows == question.rows else ())
        if table is not None:
            result.tables.append(table)
    for factor in question.factors:
        seen = attempt(observe, question.trials, (factor,), question.primary)
        if seen is None or len(seen.filled) < 2:
            continue
        base = (question.baseline(factor),)
        pairs = attempt(against, seen, base)
        if pairs:
            result.comparisons[factor] = compare(seen, pairs)
            result.verdicts.append(verdict_text(seen, base, result.comparisons[factor]))
    if result.comparisons:
        result.effects = attempt(effects, question.trials, question.primary)
    result.drawings = attempt(figures, question, sweep.history, result.comparisons) or []
    return result


def _table(part: Sweep, rows: str, columns: str | None, metric: str, baseline: tuple[str, ...]) -> Table:
    try:
        return build(part, rows, columns, metric, baseline)
    except BadRequestError:
        return build(part, rows, columns, metric)


def write(sweep: Sweep, target: Path | None = None, refresh: int | None = None) -> Path:
    """Write the report and return the path of its page.

    ``target`` is the report's folder (default: ``report/`` in the sweep's folder). ``refresh`` makes the page
    reload itself every so many seconds. The same records give the same bytes.
    Raises BadRequestError when no trial of any task has a metric.
    """
    if target is None:
        if sweep.folder is None:
            raise BadRequestError("these trials have no folder on this machine: say where with --out FOLDER")
        target = sweep.folder / "report"
    (target / "tables").mkdir(parents=True, exist_ok=True)
    (target / "figures").mkdir(exist_ok=True)
    answers = []
    several, silent = questions(sweep)
    if not several:
        raise BadRequestError("; ".join(silent))
    for question in several:
        found = answer(sweep, question)
        found.gaps += silent
        prefix = f"{formats.file_stem(question.task)}_" if len(several) > 1 else ""
        for table in found.tables:
            stem = prefix + "_by_".join([formats.file_stem(table.metric.name), formats.file_stem(table.rows.name)])
            stem += f"_and_{formats.file_stem(table.columns.name)}" if table.columns else ""
            for style in ("md", "tex", "csv"):
                (target / "tables" / f"{stem}.{style}").write_text(formats.render(table, style), encoding="utf-8")
        for drawing in found.drawings:
            (target / "figures" / f"{prefix}{drawing.name}.svg").write_bytes(drawing.svg)
            (target / "figures" / f"{prefix}{drawing.name}.png").write_bytes(drawing.png)
        answers.append(found)
    hashes = sources(sweep)
    (target / "sources.json").write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    html = page.render(sweep, answers, combined(hashes), target, refresh)
    replace_file(target / "index.html", html.encode())
    return target / "index.html"


def sources(sweep: Sweep) -> dict[str, str]:
    """SHA-256 of what the report rests on: each trial's record, or its row where there is no file."""
    hashes = {}
    for row in sweep.trials.to_dict("records"):
        folder = row.get("folder")
        path = Path(str(folder)) / record.RECORD_FILE if isinstance(folder, str) else None
        if path is not None and path.exists():
            name, content = Path(str(folder)).name, path.read_bytes()
        else:
            known = {key: value for key, value in row.items() if not pd.isna(value) and key != "folder"}
            name, content = str(row["trial_id"]), json.dumps(known, sort_keys=True, default=str).encode()
        hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def combined(hashes: dict[str, str]) -> str:
    """One hash over all sources."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(hashes.items())).encode()).hexdigest()
