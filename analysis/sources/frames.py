"""Turns what a reader collected into tidy frames: one row a trial, one type a column, every text printable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import columns
from analysis.sources.sweep import Raw, Sweep
from sweep.metrics import OF_EVERY_TRIAL, OURS, Metric
from sweep.record import flatten
from sweep.text import named, printable

if TYPE_CHECKING:
    import pandas as pd


def assemble(name: str, raw: Raw, folder: Path | None) -> Sweep:
    """The sweep that a reader has read; a trial that was read twice counts once, and a problem says so."""
    import pandas as pd

    rows = pd.DataFrame([{printable(key): _readable(value) for key, value in row.items()} for row in raw.trials])
    always = ("trial_id", "name", "ablation", "status", "folder", columns.SEED)
    empty = pd.Series(None, index=rows.index, dtype=object)
    trials = pd.DataFrame(
        {name: _one_type(rows.get(name, empty), name) for name in dict.fromkeys([*always, *rows.columns])}
    )
    trials, repeated = _distinct(trials)
    problems = [printable(line) for line in raw.problems]
    if repeated:
        problems.append(f"trials with several records, of which one is used: {named(repeated)}")
    steps = raw.history
    if not all(name.isprintable() for name in raw.columns):
        steps = [{printable(key): value for key, value in row.items()} for row in steps]
    history = pd.DataFrame(steps or {"trial_id": [], "step": []})
    numbers = history.columns.drop(["trial_id"])
    history = history.astype({column: "float64" for column in numbers if history[column].dtype == object})
    missing = sorted(map(printable, raw.missing))
    return Sweep(printable(name), trials, history, tuple(missing), tuple(problems), folder, _known(raw.metrics))


def join(parts: Sequence[Sweep]) -> Sweep:
    """Several sweeps as one; a trial that is in several counts once, and a problem says so."""
    import pandas as pd

    trials = pd.concat([part.trials for part in parts if len(part.trials)], ignore_index=True)
    trials, repeated = _distinct(trials)
    problems = [line for part in parts for line in part.problems]
    if repeated:
        problems.append(f"{len(repeated)} trials are in several sources and count once: {named(repeated)}")
    history = pd.concat([part.history for part in parts], ignore_index=True)
    history = history.drop_duplicates(["trial_id", "step"])
    missing = tuple(f"{part.name}/{item}" for part in parts for item in part.missing)
    metrics = {name: metric for part in reversed(parts) for name, metric in part.metrics.items()}
    name = "+".join(part.name for part in parts)
    return Sweep(name, trials, history, missing, tuple(problems), parts[0].folder, metrics)


def flat_row(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one row with dotted keys; a list becomes one word joined by ``+``, None is left out."""
    return {
        key: "+".join(map(str, value)) if isinstance(value, list | tuple) else value
        for key, value in flatten(values, prefix).items()
        if value is not None
    }


def _known(declared: Mapping[str, Metric]) -> dict[str, Metric]:
    """What the records declare, in their order; our own table for whatever they do not, and for what every trial has."""
    safe = {
        printable(name): replace(
            metric,
            name=printable(name),
            label=printable(metric.label),
            unit=printable(metric.unit),
            tuned_on=printable(metric.tuned_on) if metric.tuned_on else None,
        )
        for name, metric in declared.items()
    }
    ours = {name: metric for name, metric in OURS.items() if name not in safe or metric in OF_EVERY_TRIAL}
    return safe | ours


def _one_type(values: pd.Series, name: str) -> pd.Series:
    """Numbers as floats (integers where whole and complete), everything else as text or missing."""
    import pandas as pd

    present = values.dropna().to_list()
    if columns.is_metric(name) or (present and all(map(_is_number, present))):
        return pd.to_numeric(values, errors="coerce")
    text = [None if pd.isna(value) else _text(value) for value in values]
    return pd.Series(text, index=values.index, dtype="str")


def _readable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _distinct(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row a trial id, a finished one before a failed one; and the ids that were there more than once."""
    place = trials["status"].map({"finished": 0, "pruned": 1, "diverged": 2}).fillna(3).argsort(kind="stable")
    order = trials.iloc[place]
    repeated = sorted(set(order.loc[order["trial_id"].duplicated(), "trial_id"]))
    kept = order.drop_duplicates("trial_id").sort_index()
    return kept.reset_index(drop=True), repeated
