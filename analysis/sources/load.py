"""From what trials left behind to two tidy frames: one row a trial, and one row a logged step.

Nothing is dropped in silence: unfinished trials, unreadable records and torn history lines are counted and
named in ``Sweep.missing`` and ``Sweep.problems``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import columns
from analysis.errors import BadRequestError
from sweep.record import STATUSES
from sweep.text import printable

if TYPE_CHECKING:
    import pandas as pd

WANDB_SCHEME = "wandb:"
NOT_TRIALS = ("report", "wandb")


@dataclass
class Raw:
    """What a reader collects: flat rows of trials, history rows by trial, and what it could not read."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sweep:
    """The trials of one sweep, or of several read together.

    ``trials``: one row a trial, indexed 0…n−1; factors, metrics and identity as columns (see
    ``analysis.columns``). ``history``: one row a logged step, with ``trial_id`` and ``step``.
    ``missing`` names trials that started and left no record. ``problems`` says, in sentences, what could not
    be read. ``folder`` is where a report goes (None for trials that came from the W&B service).
    """

    name: str
    trials: pd.DataFrame
    history: pd.DataFrame
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many trials finished, were pruned, diverged, failed, and are missing (unfinished)."""
        found = self.trials["status"].value_counts()
        return {status: int(found.get(status, 0)) for status in STATUSES} | {"missing": len(self.missing)}


def load(source: str | Path | Sequence[str | Path]) -> Sweep:
    """Read one source, or several into one sweep.

    A source is a sweep's folder (``outputs/rank``), a folder of offline W&B runs (``outputs/rank/wandb``), or
    runs on a W&B server (``wandb:entity/project`` or ``wandb:entity/project/group``).
    Raises BadRequestError when a source does not exist or holds no trial at all.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise BadRequestError("no source: name a sweep's folder, such as outputs/quickstart")
    parts = [_load_one(item) for item in sources]
    sweep = parts[0] if len(parts) == 1 else _join(parts)
    if sweep.trials.empty:
        detail = "".join(f"\n  {line}" for line in (*sweep.problems, *(f"unfinished: {m}" for m in sweep.missing)))
        raise BadRequestError(f"no finished trial in {', '.join(map(str, sources))}{detail}")
    return sweep


def _load_one(source: str | Path) -> Sweep:
    if str(source).startswith(WANDB_SCHEME):
        from analysis.sources.wandb_api import read_group

        path = str(source).removeprefix(WANDB_SCHEME)
        return assemble(path.rsplit("/", 1)[-1], read_group(path), None)
    folder = Path(source)
    if not folder.is_dir():
        near = sorted(item.name for item in folder.parent.glob("*") if item.is_dir() and item.name[0] != ".")
        hint = f"; {folder.parent} holds {', '.join(near[:20])}" if near else ""
        raise BadRequestError(f"there is no folder {folder}{hint}")

    from analysis.sources import cache
    from analysis.sources.folders import read_trials, trial_folders

    key = cache.fingerprint(folder)
    if stored := cache.fetch(folder, key):
        return stored
    trials = trial_folders(folder)
    if not trials:
        _refuse_neighbours(folder)
        if any(folder.rglob("*.wandb")):
            from analysis.sources.wandb_runs import read_offline

            return assemble(folder.resolve().parent.name, read_offline(folder), folder)
    return cache.keep(assemble(folder.resolve().name, read_trials(trials), folder), key)


def _refuse_neighbours(folder: Path) -> None:
    """Say which folder was meant where ``folder`` is one trial, or holds several sweeps."""
    from analysis.sources.folders import is_trial, trial_folders

    if is_trial(folder):
        raise BadRequestError(f"{folder} is one trial; its sweep is {folder.resolve().parent}")
    inside = [item.name for item in sorted(folder.iterdir()) if item.is_dir() and item.name[0] != "."]
    sweeps = [name for name in inside if name not in NOT_TRIALS and trial_folders(folder / name)]
    if sweeps:
        raise BadRequestError(f"{folder} holds several sweeps; name one or more of them: {named(sweeps, 20)}")


def assemble(name: str, raw: Raw, folder: Path | None) -> Sweep:
    """Turn what a reader collected into tidy frames: one type a column, one row a trial, every text printable."""
    import pandas as pd

    rows = pd.DataFrame([{printable(key): _readable(value) for key, value in row.items()} for row in raw.trials])
    always = ("trial_id", "name", "ablation", "status", "folder", columns.SEED)
    found = dict.fromkeys([*always, *rows.columns])
    empty = pd.Series(None, index=rows.index, dtype=object)
    problems = [printable(line) for line in raw.problems]
    trials = pd.DataFrame({name: _one_type(rows.get(name, empty), name) for name in found})
    trials, repeated = _distinct(trials)
    if repeated:
        problems.append(f"{len(repeated)} trials appear more than once; one record of each is used: {named(repeated)}")
    history = pd.DataFrame(raw.history) if raw.history else pd.DataFrame({"trial_id": [], "step": []})
    history = history.rename(columns=printable)
    for column in history.columns.drop(["trial_id"]):
        history[column] = pd.to_numeric(history[column], errors="coerce")
    missing = sorted(map(printable, raw.missing))
    return Sweep(printable(name), trials, history, tuple(missing), tuple(problems), folder)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one level with dotted keys; a list becomes one word joined by ``+``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = "+".join(map(str, value))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def named(items: Sequence[str], limit: int = 5) -> str:
    """The first few of ``items`` and how many more there are."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def _one_type(values: pd.Series, name: str) -> pd.Series:
    """Numbers as floats (integers where whole and complete), everything else as text or missing."""
    import pandas as pd

    present = values.dropna()
    booleans = present.map(lambda value: isinstance(value, bool))
    if columns.is_metric(name) or (not booleans.any() and present.map(_is_number).all() and len(present)):
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


def _join(parts: Sequence[Sweep]) -> Sweep:
    import pandas as pd

    trials = pd.concat([part.trials for part in parts if len(part.trials)], ignore_index=True)
    trials, repeated = _distinct(trials)
    problems = [line for part in parts for line in part.problems]
    if repeated:
        problems.append(f"{len(repeated)} trials are in several sources and count once: {named(repeated)}")
    history = pd.concat([part.history for part in parts], ignore_index=True)
    history = history.drop_duplicates(["trial_id", "step"])
    missing = tuple(f"{part.name}/{item}" for part in parts for item in part.missing)
    return Sweep("+".join(part.name for part in parts), trials, history, missing, tuple(problems), parts[0].folder)
