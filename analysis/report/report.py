"""Writes ``report/`` beside the trials: one page to mail, the tables for a paper, the figures, the sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from analysis.errors import BadRequestError
from analysis.report import page
from analysis.report.answer import Answer, answer
from analysis.sources.sweep import Sweep
from analysis.statistics.questions import questions
from analysis.tables.layout import file_stem
from analysis.tables.render import render
from sweep import record
from sweep.files import replace_file


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
    asked, silent = questions(sweep)
    if not asked:
        raise BadRequestError("; ".join(silent))
    answers = []
    for question in asked:
        found = answer(sweep, question)
        found.gaps += silent
        _write_parts(found, target, f"{file_stem(question.task)}_" if len(asked) > 1 else "")
        answers.append(found)
    hashes = sources(sweep)
    (target / "sources.json").write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    html = page.render(sweep, answers, combined(hashes), target, refresh)
    replace_file(target / "index.html", html.encode())
    return target / "index.html"


def _write_parts(found: Answer, target: Path, prefix: str) -> None:
    """Write the tables and figures of one answer."""
    for table in found.tables:
        stem = prefix + "_by_".join([file_stem(table.metric.name), file_stem(table.rows.name)])
        stem += f"_and_{file_stem(table.columns.name)}" if table.columns else ""
        for style in ("md", "tex", "csv"):
            (target / "tables" / f"{stem}.{style}").write_text(render(table, style), encoding="utf-8")
    for drawing in found.drawings:
        (target / "figures" / f"{prefix}{drawing.name}.svg").write_bytes(drawing.svg)
        (target / "figures" / f"{prefix}{drawing.name}.png").write_bytes(drawing.png)


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
