"""Copies of loaded sweeps and scores in the user's own cache folder: the second load takes a tenth of a second.

The key is the device, inode, time of change and size of every file that the loader reads, so a changed or new record is
always seen. Nothing is kept in a sweep's folder, which may come from elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.sources.folders import begun_trials
from analysis.sources.sweep import Sweep
from sweep import metrics, record
from sweep.files import replace_file

if TYPE_CHECKING:
    import numpy as np

VERSION = 4
FEWEST_KEPT = 500
"""Fewer files of scores than this are read as fast as a copy."""


def place() -> Path:
    """Where copies are: ``$XDG_CACHE_HOME/lora-sweep/analysis``, or below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lora-sweep" / "analysis"


def fingerprint(folder: Path) -> str:
    """A hash of what the loader would read: the state of every file."""
    digest = hashlib.sha256(f"version {VERSION} ".encode() + os.fsencode(folder))
    for trial in begun_trials(folder):
        for path in (trial, *(trial / name for name in (record.RECORD_FILE, record.HISTORY_FILE, ".hydra"))):
            try:
                now = state(path)
            except OSError:
                continue
            digest.update(os.fsencode(path.relative_to(folder)))
            digest.update(f" {' '.join(map(str, now))}\n".encode())
    return digest.hexdigest()


def state(path: Path | str) -> tuple[int, int, int, int]:
    """What changes with a file: its device, inode, time of change and size. Raises OSError where there is none."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


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


def fetch_columns(folder: Path, name: str, states: np.ndarray) -> dict[str, np.ndarray] | None:
    """The columns that were kept as ``name``, of the files that have these ``states`` (T, 4); None unless all are there.

    ``sums`` has a row for each file; the others belong to all of them.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if len(states) < FEWEST_KEPT:
        return None
    try:
        kept = load_file(_columns_file(folder, name))
        known = kept.pop("states")
        if np.array_equal(known, states):
            return kept
        row_of = {row: place for place, row in enumerate(map(tuple, known.tolist()))}
        return kept | {"sums": kept["sums"][[row_of[row] for row in map(tuple, states.tolist())]]}
    except (OSError, KeyError, SafetensorError):
        return None


def keep_columns(folder: Path, name: str, states: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Keep ``columns`` for ``fetch_columns``, in place of what was kept before; where there are few, reading is as fast."""
    from safetensors.numpy import save

    if len(states) < FEWEST_KEPT:
        return
    with contextlib.suppress(OSError):
        place().mkdir(parents=True, exist_ok=True)
        replace_file(_columns_file(folder, name), save({**columns, "states": states}))


def _columns_file(folder: Path, name: str) -> Path:
    return place() / f"{_stem(folder)}.{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def _files(folder: Path) -> tuple[Path, Path]:
    """The files of the trials and of the history of ``folder``."""
    stem = _stem(folder)
    return place() / f"{stem}.trials.parquet", place() / f"{stem}.history.parquet"


def _stem(folder: Path) -> str:
    """How a folder is known: by its device and inode."""
    found = folder.stat()
    return f"{found.st_dev:x}-{found.st_ino:x}"
