"""Which process trains which trial: for each, it holds a byte of the sweep's lock file while it trains.

The kernel ends a lock with its process, however that ends, so nothing is left to clean up. One open file is
enough for any number of trials. Launches on several machines see each other where the file system has POSIX
locks, as NFS has; on one without them, locking is an OSError, and nothing is trained.
"""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sweep.files import append_to, open_foreign

LOCK_FILE = ".lock"
LARGEST_LOCK = 1 << 20
"""Largest lock file, in bytes; ours is empty."""
SHORT = 8
"""Hex digits of a trial's identity that its folder's name ends with; they are enough here."""

_TURN = 1 << (4 * SHORT)
"""The byte that is held while a claim is made or looked at: two launches do not split a pack between them."""


@contextmanager
def claim(folder: Path, trial_ids: Iterable[str]) -> Iterator[set[str]]:
    """Hold, inside the block, those of ``trial_ids`` that no other process holds; yields them.

    A process has one claim on a sweep at a time: closing the file ends all locks that the process has on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with append_to(folder / LOCK_FILE, create=True) as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, _TURN)
        ours = {trial_id for trial_id in trial_ids if _lock(file, trial_id, fcntl.LOCK_EX)}
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _TURN)
        yield ours


def wait_for(folder: Path, trial_ids: Iterable[str]) -> None:
    """Return when each of ``trial_ids`` has been free."""
    with append_to(folder / LOCK_FILE, create=True) as file:
        for trial_id in trial_ids:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, _byte(trial_id))
            fcntl.lockf(file, fcntl.LOCK_UN, 1, _byte(trial_id))


def claimed(folder: Path, trial_ids: Iterable[str]) -> set[str]:
    """The ``trial_ids`` that another process is training now."""
    try:
        with open_foreign(folder / LOCK_FILE, LARGEST_LOCK, links=False) as file:
            fcntl.lockf(file, fcntl.LOCK_SH, 1, _TURN)
            return {trial_id for trial_id in trial_ids if not _is_free(file, trial_id)}
    except FileNotFoundError:
        return set()


def _lock(file: IO[bytes], trial_id: str, kind: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, _byte(trial_id))
    except BlockingIOError:
        return False
    return True


def _is_free(file: IO[bytes], trial_id: str) -> bool:
    """Whether no other process holds this trial; its byte is let go at once, as the kernel searches all that are held."""
    free = _lock(file, trial_id, fcntl.LOCK_SH)
    if free:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _byte(trial_id))
    return free


def _byte(trial_id: str) -> int:
    return int(trial_id[:SHORT], 16)
