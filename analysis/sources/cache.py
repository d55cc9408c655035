"""Parquet copies of loaded sweeps in the user's own cache folder: the second load takes a tenth of a second.

The key is the device, inode, time of change and size of every file that the loader reads, so a changed or new record is
always seen. Nothing is kept in a sweep's folder, which may come from elsewhere.
"""

import hashlib
import os
from pathlib import Path

from analysis.sources.folders import begun_trials
from analysis.sources.sweep import Sweep
from sweep import metrics, record
from sweep.files import replace_file

VERSION = 4


def place() -> Path:
    """Where copies are: ``$XDG_CACHE_HOME/lora-sweep/analysis``, or below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lora-sweep" / "analysis"


def fingerprint(folder: Path) -> str:
    """A hash of what the loader would read: the state of every file."""
    digest = hashlib.sha256(f"version {VERSION} ".encode() + os.fsencode(folder))
    for trial in begun_trials(folder):
        for path in (trial, *(trial / name for name in (record.RECORD_FILE, record.HISTORY_FILE, ".hydra"))):
            try:
                state = path.lstat()
            except OSError:
                continue
            digest.update(os.fsencode(path.relative_to(folder)))
            digest.update(f" {state.st_dev} {state.st_ino} {state.st_ctime_ns} {state.st_size}\n".encode())
    return digest.hexdigest()


def fetch(folder: Path, key: str) -> Sweep | None:
    """The stored copy of ``folder``, or None where there is none for this ``key``, or a damaged one."""
    import pandas as pd
    from pyarrow.lib import ArrowException

    trials_file, history_file = _files(folder)
    try:
        trials, history = pd.read_parquet(trials_file), pd.read_parquet(history_file)
        if (trials.attrs["key"], history.attrs["key"]) != (key, key):
            return None
        sweep = Sweep(
            trials.attrs["name"],
            trials,
            history,
            tuple(trials.attrs["missing"]),
            tuple(trials.attrs["problems"]),
            folder,
            metrics.of_plain(trials.attrs["metrics"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ArrowException):
        return None
    trials.attrs, history.attrs = {}, {}
    return sweep


def keep(sweep: Sweep, key: str) -> Sweep:
    """Store a copy of ``sweep`` and hand it back; where none can be written, it is read anew each time."""
    assert sweep.folder is not None
    if sweep.trials.empty:
        return sweep
    trials, history = sweep.trials.copy(deep=False), sweep.history.copy(deep=False)
    trials.attrs = {
        "key": key,
        "name": sweep.name,
        "missing": sweep.missing,
        "problems": sweep.problems,
        "metrics": metrics.to_plain(sweep.metrics.values()),
    }
    history.attrs = {"key": key}
    try:
        place().mkdir(parents=True, exist_ok=True)
        for file, frame in zip(_files(sweep.folder), (trials, history), strict=True):
            replace_file(file, frame.to_parquet())
    except OSError:
        return sweep
    return sweep


def _files(folder: Path) -> tuple[Path, Path]:
    """The files of the trials and of the history of ``folder``, which is known by its device and inode."""
    state = folder.stat()
    stem = f"{state.st_dev:x}-{state.st_ino:x}"
    return place() / f"{stem}.trials.parquet", place() / f"{stem}.history.parquet"
