"""Writes ``report/`` beside the trials: one page to mail, the tables for a paper, the figures, the sources."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.errors import BadRequestError
from analysis.report import page
from analysis.report.answer import Answer, answer, draw
from analysis.sources.sweep import Sweep
from analysis.statistics.confidence import Generalise
from analysis.statistics.questions import questions
from analysis.tables.layout import file_stem
from sweep import record
from sweep.files import make_folder, read_foreign, replace_file


def write(
    sweep: Sweep,
    target: Path | None = None,
    refresh: int | None = None,
    generalise: Generalise = "both",
    margin: float | None = None,
) -> Path:
    """Write the report and return the path of its page.

    ``target`` is the report's folder (default: ``report/`` in the sweep's folder). ``refresh`` makes the page
    reload itself every so many seconds. ``generalise`` and ``margin`` are those of ``analysis.tables.table.build``. The
    same records give the same bytes.
    Raises BadRequestError when no trial of any task has a metric.
    """
    if target is None:
        if sweep.folder is None:
            raise BadRequestError("these trials have no folder on this machine: say where with --out FOLDER")
        target = sweep.folder / "report"
        make_folder(target)
    for name in ("tables", "figures"):
        make_folder(target / name)
    answers = [draw(one, sweep) for one in answer_all(sweep, generalise, margin)]
    for name, content in ((name, content) for one in answers for name, content in one.files.items()):
        replace_file(target / name, content)
    hashes = sources(sweep)
    replace_file(target / "sources.json", json.dumps(hashes, indent=1, sort_keys=True).encode() + b"\n")
    html = page.render(sweep, answers, combined(hashes), target, refresh)
    replace_file(target / "index.html", html.encode())
    return target / "index.html"


def as_page(sweep: Sweep) -> str:
    """The report's page alone; nothing is written, and trials are not linked to their folders."""
    answers = [draw(one, sweep) for one in answer_all(sweep)]
    return page.render(sweep, answers, combined(sources(sweep)))


def answer_all(sweep: Sweep, generalise: Generalise = "both", margin: float | None = None) -> list[Answer]:
    """An answer for each task, without figures. Raises BadRequestError when no trial of any task has a metric."""
    asked, silent = questions(sweep)
    if not asked:
        raise BadRequestError("; ".join(silent))
    answers = []
    for question in asked:
        asking = replace(question, generalise=generalise, margin=margin)
        reply = answer(sweep, asking, f"{file_stem(question.task)}_" if len(asked) > 1 else "")
        reply.gaps += silent
        answers.append(reply)
    return answers


def sources(sweep: Sweep) -> dict[str, str]:
    """SHA-256 of what the report rests on: each trial's record, or its row where there is no file."""
    hashes = {}
    for row in sweep.trials.to_dict("records"):
        folder = row.get("folder")
        path = Path(str(folder)) / record.RECORD_FILE if isinstance(folder, str) else None
        try:
            content = None if path is None else read_foreign(path, record.LARGEST_RECORD, links=False)
        except FileNotFoundError:
            content = None
        name = str(row["trial_id"]) if content is None else Path(str(folder)).name
        if content is None:
            known = {key: value for key, value in row.items() if not pd.isna(value) and key != "folder"}
            content = json.dumps(known, sort_keys=True, default=str).encode()
        hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def combined(hashes: dict[str, str]) -> str:
    """One hash over all sources."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(hashes.items())).encode()).hexdigest()
