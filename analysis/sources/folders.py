"""Reads a sweep's folder: one subfolder a trial, with ``record.json`` and ``history.jsonl``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from analysis.columns import is_factor
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from sweep import metrics, record
from sweep.files import read_foreign

LAST_STEP = 1 << 53
"""Largest step: a float cannot count beyond it."""


def begun_trials(folder: Path) -> list[Path]:
    """The folders into which a trial of the sweep in ``folder`` has written something, by name."""
    return [path for path in record.trial_folders(folder) if record.has_begun(path)]


def read_trials(folders: Iterable[Path]) -> Raw:
    """Read the trials in ``folders``: an unreadable record or line becomes a problem, never an exception."""
    raw = Raw()
    torn: list[str] = []
    declared: dict[str, Any] = {}
    for item in folders:
        if item.is_symlink():
            raw.problems.append(f"{item} is a symbolic link, which is not followed")
            continue
        try:
            trial = record.read(item)
        except ValueError as error:
            raw.problems.append(str(error))
            continue
        if trial is None:
            raw.missing.append(item.name)
            continue
        try:
            rows, bad = read_history(item / record.HISTORY_FILE)
        except OSError as error:
            raw.problems.append(f"{item / record.HISTORY_FILE} is left out ({error.strerror})")
            rows, bad = [], 0
        raw.add(trial_row(trial, item), rows, str(item))
        if trial.metrics != declared:
            declared = trial.metrics
            raw.declare(metrics.of_plain(declared), item.name)
        if bad:
            torn.append(f"{item.name} ({bad})")
    if torn:
        raw.problems.append(f"unreadable history lines were left out in {', '.join(torn)}")
    return raw


def trial_row(trial: record.Record, folder: Path) -> dict[str, Any]:
    """The flat row of one record: identity, factors, metrics, size, speed, environment."""
    row = {
        "trial_id": trial.trial_id,
        "name": trial.name,
        "ablation": trial.ablation,
        "status": trial.status,
        "folder": folder.as_posix(),
        **{key: value for key, value in flat_row(trial.trial).items() if is_factor(key)},
        **trial.result,
        **{f"params/{key}": value for key, value in trial.params.items()},
        **{f"perf/{key}": value for key, value in trial.perf.items()},
    }
    row.update(flat_row(trial.environment, "environment."))
    if trial.error:
        row["error.type"] = trial.error.get("type")
        row["error.message"] = trial.error.get("message")
    return row


def read_history(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of one ``history.jsonl`` and how many lines are not JSON objects (a torn last line).

    Raises OSError for a file that is there and cannot be read.
    """
    try:
        return parse_rows(read_foreign(path, record.LARGEST_HISTORY, links=False))
    except FileNotFoundError:
        return [], 0


def parse_rows(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The rows in a part of a ``history.jsonl``, and how many of its lines are none."""
    rows: list[dict[str, Any]] = []
    bad = 0
    for line in content.splitlines():
        try:
            row = orjson.loads(line)
        except ValueError:
            bad += 1
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] <= LAST_STEP:
            rows.append({key: value for key, value in row.items() if record.is_number(value)})
        else:
            bad += 1
    return rows, bad
