"""W&B runs as trials: the same rows that the local records give, from offline files or from a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.columns import is_factor
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from analysis.sources.wandb_files import read_run, run_files
from sweep.record import STATUSES, is_number
from sweep.wandb_log import RESULT

MEASURED = ("params/", "perf/")


def read_offline(folder: Path) -> Raw:
    """Read every offline run below ``folder``; a run that was killed before its end is missing, not lost."""
    raw = Raw()
    cut = []
    for path in run_files(folder):
        try:
            run = read_run(path)
        except ValueError as error:
            raw.problems.append(str(error))
            continue
        add_run(raw, run.id, run.name, run.group, run.config, run.summary, run.history, run.exit_code)
        if run.truncated and run.exit_code is not None:
            cut.append(run.name or run.id)
    if cut:
        raw.problems.append(f"files of finished runs are damaged at their end: {', '.join(cut)}")
    return settled(raw)


def settled(raw: Raw) -> Raw:
    """The same, where an abandoned attempt at a trial that has an outcome no longer counts as missing."""
    done = {row["run"] for row in raw.trials}
    raw.missing = sorted({name for name in raw.missing if name not in done})
    return raw


def add_run(
    raw: Raw,
    run_id: str,
    name: str,
    group: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]],
    exit_code: int | None,
) -> None:
    """Add one run to ``raw``: a trial with its history, or a missing one where it left no outcome.

    A run of this harness has a ``trial_id`` in its config and its record in its summary. Of any other run the
    plain numbers of the summary are its metrics, and exit code 0 means finished.
    """
    status = summary.get("status")
    ours = "trial_id" in config
    if status is not None and status not in STATUSES:
        raw.problems.append(
            f"the W&B run {name or run_id} is left out: its status {status!r} is none of {', '.join(STATUSES)}"
        )
        return
    if status is None and (ours or exit_code is None):
        raw.missing.append(name or run_id)
        return
    flat = flat_row(config)
    trial_id = str(flat.get("trial_id", run_id))
    row: dict[str, Any] = {
        "trial_id": trial_id,
        "name": group or None,
        "run": name or run_id,
        "ablation": flat.get("ablation"),
        "status": status or ("finished" if exit_code == 0 else "failed"),
        **{key: value for key, value in flat.items() if is_factor(key)},
    }
    for key, value in summary.items():
        if key.startswith(RESULT):
            row[key.removeprefix(RESULT)] = value if is_number(value) else None
        elif key.startswith("error.") or ((key.startswith(MEASURED) or (not ours and "/" in key)) and is_number(value)):
            row[key] = value
    raw.trials.append(row)
    rows = [{key: value for key, value in row.items() if is_number(value)} for row in history]
    raw.history += [row | {"trial_id": trial_id} for row in rows if "step" in row]
