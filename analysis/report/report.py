"""Writes ``report/`` beside the trials: one page to mail, the tables for a paper, the figures, the sources."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.errors import BadRequestError
from analysis.report import page
from analysis.report.answer import Answer, answer
from analysis.sources.sweep import Sweep
from analysis.statistics.confidence import Generalise
from analysis.statistics.questions import questions
from analysis.tables.layout import file_stem
from analysis.tables.render import render
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
    asked, silent = questions(sweep)
    if not asked:
        raise BadRequestError("; ".join(silent))
    answers = []
    for question in asked:
        found = answer(sweep, replace(question, generalise=generalise, margin=margin))
        found.gaps += silent
        _write_parts(found, target, f"{file_stem(question.task)}_" if len(asked) > 1 else "")
        answers.append(found)
    hashes = sources(sweep)
    replace_file(target / "sources.json", json.dumps(hashes, indent=1, sort_keys=True).encode() + b"\n")
    html = page.render(sweep, answers, combined(hashes), target, refresh)
    replace_file(target / "index.html", html.encode())
    return target / "index.html"


def _write_parts(found: Answer, target: Path, prefix: str) -> None:
    """Write the tables and figures of one answer."""
    for table in found.tables:
        stem = prefix + "_by_".join([file_stem(table.metric.name), file_stem(table.rows.name)])
        stem += f"_and_{file_stem(table.columns.name)}" if table.columns else ""
        for style in ("md", "tex", "csv"):
            replace_file(target / "tables" / f"{stem}.{style}", render(table, style).encode())
    for drawing in found.drawings:
        replace_file(target / "figures" / f"{prefix}{drawing.name}.svg", drawing.svg)
        replace_file(target / "figures" / f"{prefix}{drawing.name}.png", drawing.png)


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
