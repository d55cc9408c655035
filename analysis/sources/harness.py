"""Reads what lm-evaluation-harness leaves with ``--log_samples``: the scores of each example, ``samples_TASK_DATE.jsonl``.

One trial is one model's folder, task and filter. Its settings come from the names of the folders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from analysis.columns import MEASURED, TASK
from analysis.sources.folder_names import settings_in
from analysis.sources.foreign import Roles, Run, add_runs, metric_name
from analysis.sources.sweep import Raw
from analysis.sources.walk import files_below
from sweep.files import read_foreign
from sweep.metrics import Metric
from sweep.record import LARGEST_RECORD, is_number
from sweep.text import reason

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d{2}-\d{2}T[\d.:-]+)\.jsonl")
LARGEST_SAMPLES = 1 << 30


def sample_files(folder: Path) -> list[Path]:
    """The files of samples below ``folder``."""
    return files_below(folder, lambda name: SAMPLES.fullmatch(name) is not None)


def read(folder: Path, files: Sequence[Path], roles: Roles) -> Raw:
    """One trial a model's folder, task and filter, from the latest file of each task."""
    raw = Raw()
    latest = {(file.parent, _named(file)["task"]): file for file in files}  # by name, and a later date is a later name
    runs = []
    for (place, task), file in latest.items():
        model = place.relative_to(folder).as_posix()
        try:
            by_filter = _scores(file, task)
        except (OSError, ValueError) as error:
            raw.problems.append(f"{file} is left out: {reason(error)}")
            continue
        for name, by_metric in by_filter.items():
            settings = {
                "model": model,
                TASK: task,
                **({} if name == "none" else {"filter": name}),
                **settings_in(model),
            }
            means = {metric: sum(values.values()) / len(values) for metric, values in by_metric.items()}
            runs.append(
                Run("/".join([model, task, *([name] if name != "none" else [])]), settings, means, scores=by_metric)
            )
        raw.declare(_directions(file, task), model)
    add_runs(raw, runs, roles)
    return raw


def _named(file: Path) -> re.Match[str]:
    """The task and the date in the name of one of ``sample_files``."""
    match = SAMPLES.fullmatch(file.name)
    assert match is not None
    return match


def _scores(file: Path, task: str) -> dict[str, dict[str, dict[str, float]]]:
    """The scores by filter, metric and example. Raises ValueError for what are no samples."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for line in read_foreign(file, LARGEST_SAMPLES, links=False).splitlines():
        row = orjson.loads(line)
        names = row.get("metrics") if isinstance(row, dict) else None
        if not isinstance(names, list) or "doc_id" not in row:
            raise ValueError("it does not hold samples of lm-evaluation-harness")
        for name in map(str, names):
            value = row.get(name)
            if is_number(value) or isinstance(value, bool):
                example = f"{task} {row.get('doc_hash') or row['doc_id']}"
                found.setdefault(str(row.get("filter", "none")), {}).setdefault(name, {})[example] = float(value)
    if not found:
        raise ValueError("none of its metrics is a number of a single example")
    return found


def _directions(file: Path, task: str) -> Mapping[str, Metric]:
    """Which way the metrics of ``task`` are better, from the results beside the samples, where there are any."""
    results = file.with_name(f"results_{_named(file)['date']}.json")
    try:
        content: Any = orjson.loads(read_foreign(results, LARGEST_RECORD))
        told = content["higher_is_better"][task]
        better = {str(name): higher for name, higher in told.items() if isinstance(higher, bool)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {
        (full := metric_name(name)): Metric(
            full, full.removeprefix(MEASURED), better="higher" if higher else "lower", tuned_on=full
        )
        for name, higher in better.items()
    }
