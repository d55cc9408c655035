"""A Parquet copy of a loaded sweep, in ``<sweep>/.analysis/``: the second load takes a tenth of a second.

The key is the name, size and modification time of every file that the loader reads, so a changed or new
record is always seen.
"""

import hashlib
import os
from pathlib import Path

import orjson

from analysis.sources.folders import begun_trials
from analysis.sources.sweep import Sweep
from sweep import metrics, record
from sweep.files import replace_file

VERSION = 3
FOLDER = ".analysis"


def fingerprint(folder: Path) -> str:
    """A hash of what the loader would read: file names, sizes and modification times."""
    digest = hashlib.sha256(f"version {VERSION}".encode())
    for trial in begun_trials(folder):
        for name in (record.RECORD_FILE, record.HISTORY_FILE, ".hydra"):
            try:
                state = (trial / name).stat()
            except OSError:
                continue
            digest.update(f"{trial.name}/{name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def fetch(folder: Path, key: str) -> Sweep | None:
    """The stored copy of ``folder``, or None where there is none for this ``key``."""
    import pandas as pd

    place = folder / FOLDER
    try:
        facts = orjson.loads((place / "sweep.json").read_bytes())
        if facts["key"] != key:
            return None
        trials = pd.read_parquet(place / f"trials-{key[:16]}.parquet")
        history = pd.read_parquet(place / f"history-{key[:16]}.parquet")
        known = metrics.of_plain(facts["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if facts["folder"] != folder.as_posix():
        trials["folder"] = [(folder / Path(item).name).as_posix() for item in trials["folder"]]
    missing, problems = tuple(facts["missing"]), tuple(facts["problems"])
    return Sweep(folder.resolve().name, trials, history, missing, problems, folder, known)


def keep(sweep: Sweep, key: str) -> Sweep:
    """Store a copy of ``sweep`` and hand it back; a folder that cannot be written is read anew each time."""
    assert sweep.folder is not None
    if sweep.trials.empty:
        return sweep
    place = sweep.folder / FOLDER
    try:
        place.mkdir(exist_ok=True)
        for old in place.glob("*.parquet"):
            old.unlink()
        for name, frame in (("trials", sweep.trials), ("history", sweep.history)):
            temporary = place / f".{name}.{os.getpid()}"
            frame.to_parquet(temporary)
            temporary.replace(place / f"{name}-{key[:16]}.parquet")
        facts = {
            "key": key,
            "folder": sweep.folder.as_posix(),
            "missing": sweep.missing,
            "problems": sweep.problems,
            "metrics": metrics.to_plain(sweep.metrics.values()),
        }
        replace_file(place / "sweep.json", orjson.dumps(facts))
    except OSError:
        return sweep
    return sweep
