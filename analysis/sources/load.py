"""Loads the trials of a sweep, wherever they are: chooses the reader of each source.

Nothing is dropped silently: unfinished trials, unreadable records and torn history lines are counted and
named in ``Sweep.missing`` and ``Sweep.problems``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.errors import BadRequestError
from analysis.sources import cache, harness, trainer
from analysis.sources.folders import begun_trials, read_trials
from analysis.sources.foreign import AS_FOUND, Roles
from analysis.sources.frames import assemble, join
from analysis.sources.sweep import Sweep
from analysis.sources.tabular import FORMATS, read_frame, read_table
from analysis.sources.wandb_api import read_group
from analysis.sources.wandb_files import run_files
from analysis.sources.wandb_runs import read_offline
from sweep.record import NOT_TRIALS, has_begun
from sweep.text import named

WANDB_SCHEME = "wandb:"


def load(source: str | Path | Sequence[str | Path], roles: Roles = AS_FOUND) -> Sweep:
    """Read one source, or several into one sweep; ``roles`` describes the results of another program.

    Raises BadRequestError when a source does not exist or holds no trial at all.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise BadRequestError("no source: name a sweep's folder, such as outputs/quickstart")
    parts = [_load_one(item, roles) for item in sources]
    sweep = parts[0] if len(parts) == 1 else join(parts)
    if sweep.trials.empty:
        detail = "".join(f"\n  {line}" for line in (*sweep.problems, *(f"unfinished: {m}" for m in sweep.missing)))
        raise BadRequestError(f"no finished trial in {', '.join(map(str, sources))}{detail}")
    return sweep


def _load_one(source: str | Path, roles: Roles) -> Sweep:
    if str(source).startswith(WANDB_SCHEME):
        path = str(source).removeprefix(WANDB_SCHEME)
        return assemble(path.rsplit("/", 1)[-1], read_group(path, roles), None)
    folder = Path(source)
    if folder.suffix in FORMATS and not folder.is_dir():
        return assemble(folder.stem, read_frame(read_table(folder), roles, folder.stem), None)
    if not folder.is_dir():
        near = sorted(item.name for item in folder.parent.glob("*") if item.is_dir() and item.name[0] != ".")
        hint = f"; {folder.parent} holds {', '.join(near[:20])}" if near else ""
        raise BadRequestError(f"there is no folder {folder}{hint}")
    key = cache.fingerprint(folder)
    if stored := cache.fetch(folder, key):
        return stored
    trials = begun_trials(folder)
    if not trials:
        _refuse_neighbours(folder)
        if run_files(folder):
            return assemble(folder.resolve().parent.name, read_offline(folder, roles), folder)
        if states := trainer.state_files(folder):
            return assemble(folder.resolve().name, trainer.read(folder, states, roles), folder)
        if samples := harness.sample_files(folder):
            return assemble(folder.resolve().name, harness.read(folder, samples, roles), folder)
    return cache.keep(assemble(folder.resolve().name, read_trials(trials), folder), key)


def _refuse_neighbours(folder: Path) -> None:
    """Say which folder was meant where ``folder`` is one trial, or holds several sweeps."""
    if has_begun(folder):
        raise BadRequestError(f"{folder} is one trial; its sweep is {folder.resolve().parent}")
    inside = [item.name for item in sorted(folder.iterdir()) if item.is_dir() and item.name[0] != "."]
    sweeps = [name for name in inside if name not in NOT_TRIALS and begun_trials(folder / name)]
    if sweeps:
        raise BadRequestError(f"{folder} holds several sweeps; name one or more of them: {named(sweeps, 20)}")
