"""W&B runs as trials: the same rows that the local records give, from offline files or from a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.columns import is_factor, is_metric
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from analysis.sources.wandb_files import WandbRun, read_run, run_files
from sweep.record import STATUSES, is_number, wrong_settings
from sweep.wandb_log import RESULT

MEASURED = ("params/", "perf/")
ERROR = ("error.type", "error.message")


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
        add_run(raw, run)
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


def add_run(raw: Raw, run: WandbRun) -> None:
    """Add one run to ``raw``: a trial with its history, or a missing one where it left no outcome.

    A run of this harness has a ``trial_id`` in its config and its record in its summary. Of any other run the
    plain numbers of the summary are its metrics, and exit code 0 means finished.
    """
    status = run.summary.get("status")
    ours = "trial_id" in run.config
    name = run.name or run.id
    if status is not None and status not in STATUSES:
        raw.problems.append(f"the W&B run {name} is left out: its status {status!r} is none of {', '.join(STATUSES)}")
        return
    if status is None and (ours or run.exit_code is None):
        raw.missing.append(name)
        return
    flat = flat_row(run.config)
    settings = {key: value for key, value in flat.items() if is_factor(key)}
    result = {key.removeprefix(RESULT): value for key, value in run.summary.items() if key.startswith(RESULT)}
    trial_id, ablation = run.config.get("trial_id", run.id), run.config.get("ablation") if ours else None
    if fault := _fault(status, (trial_id, "" if ablation is None else ablation), settings, result if ours else None):
        raw.problems.append(f"the W&B run {name} is left out: {fault}")
        return
    row: dict[str, Any] = {
        "trial_id": trial_id,
        "name": run.group or None,
        "run": name,
        "ablation": ablation,
        "status": status or ("finished" if run.exit_code == 0 else "failed"),
        **settings,
        **{key: value if is_number(value) else None for key, value in result.items()},
    }
    for key, value in run.summary.items():
        measured = key.startswith(MEASURED) or (not ours and is_metric(key) and not key.startswith(RESULT))
        if (key in ERROR and isinstance(value, str)) or (measured and is_number(value)):
            row[key] = value
    rows = [{key: value for key, value in row.items() if is_number(value)} for row in run.history]
    raw.add(row, [row for row in rows if "step" in row], f"the W&B run {name}")


def _fault(status: Any, texts: Iterable[Any], settings: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    """What no trial can have left, or an empty string; ``result`` is None for a run of another program."""
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return "its trial_id or its ablation is not a text that can be printed"
    if result is not None and status == "finished" and not result:
        return "it finished without a result"
    if wrong := [name for name in result or () if not is_metric(name)]:
        return f"result[{wrong[0]!r}] is not the name of a metric, such as eval/loss"
    return next(wrong_settings(settings), "")
