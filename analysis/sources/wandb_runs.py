"""W&B runs as trials: the same rows that the local records give, from offline files or from a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.columns import is_factor, is_metric
from analysis.sources.foreign import AS_FOUND, Roles, Run, add_runs
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from analysis.sources.wandb_files import WandbRun, read_run, run_files
from sweep.record import STATUSES, is_number, wrong_settings
from sweep.wandb_log import RESULT

MEASURED = ("params/", "perf/")
ERROR = ("error.type", "error.message")


def read_offline(folder: Path, roles: Roles = AS_FOUND) -> Raw:
    """Read every offline run below ``folder``; a run that was killed before its end is missing, not lost."""
    raw = Raw()
    cut, runs = [], []
    for path in run_files(folder):
        try:
            run = read_run(path)
        except ValueError as error:
            raw.problems.append(str(error))
            continue
        runs.append(run)
        if run.truncated and run.exit_code is not None:
            cut.append(run.name or run.id)
    if cut:
        raw.problems.append(f"files of finished runs are damaged at their end: {', '.join(cut)}")
    return read_runs(runs, roles, raw)


def read_runs(runs: Iterable[WandbRun], roles: Roles, raw: Raw) -> Raw:
    """Add ``runs`` to ``raw``: those of this harness have a ``trial_id``, all others are those of another program.

    An abandoned attempt at a trial that has an outcome does not count as missing.
    """
    others = []
    for run in runs:
        if "trial_id" in run.config:
            add_run(raw, run)
        elif run.exit_code is None:
            raw.missing.append(run.name or run.id)
        else:
            others.append(foreign_run(run))
    add_runs(raw, others, roles)
    done = {row["run"] for row in raw.trials}
    raw.missing = sorted({name for name in raw.missing if name not in done})
    return raw


def foreign_run(run: WandbRun) -> Run:
    """A run of another program: its configuration, the numbers of its summary, and exit code 0 for finished."""
    measured = {key: value.get("last") if isinstance(value, dict) else value for key, value in run.summary.items()}
    rows = [{key: value for key, value in row.items() if is_number(value)} for row in run.history]
    return Run(
        run.name or run.id,
        flat_row(run.config),
        {key: value for key, value in measured.items() if is_number(value)},
        [row for row in rows if row.keys() > {"step"}],
        "finished" if run.exit_code == 0 else "failed",
        run.id,
    )


def add_run(raw: Raw, run: WandbRun) -> None:
    """Add one run of this harness to ``raw``: a trial with its history, or a missing one where it left no outcome."""
    status = run.summary.get("status")
    name = run.name or run.id
    if status is not None and status not in STATUSES:
        raw.problems.append(f"the W&B run {name} is left out: its status {status!r} is none of {', '.join(STATUSES)}")
        return
    if status is None:
        raw.missing.append(name)
        return
    flat = flat_row(run.config)
    settings = {key: value for key, value in flat.items() if is_factor(key)}
    result = {key.removeprefix(RESULT): value for key, value in run.summary.items() if key.startswith(RESULT)}
    trial_id, ablation = run.config["trial_id"], run.config.get("ablation")
    if fault := _fault(status, (trial_id, "" if ablation is None else ablation), settings, result):
        raw.problems.append(f"the W&B run {name} is left out: {fault}")
        return
    row: dict[str, Any] = {
        "trial_id": trial_id,
        "name": run.group or None,
        "run": name,
        "ablation": ablation,
        "status": status,
        **settings,
        **{key: value if is_number(value) else None for key, value in result.items()},
    }
    for key, value in run.summary.items():
        if (key in ERROR and isinstance(value, str)) or (key.startswith(MEASURED) and is_number(value)):
            row[key] = value
    rows = [{key: value for key, value in row.items() if is_number(value)} for row in run.history]
    raw.add(row, [row for row in rows if row.keys() > {"step"}], f"the W&B run {name}")


def _fault(status: Any, texts: Iterable[Any], settings: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What no trial can have left, or an empty string."""
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        return "its trial_id or its ablation is not a text that can be printed"
    if status == "finished" and not result:
        return "it finished without a result"
    if wrong := [name for name in result if not is_metric(name)]:
        return f"result[{wrong[0]!r}] is not the name of a metric, such as eval/loss"
    return next(wrong_settings(settings), "")
