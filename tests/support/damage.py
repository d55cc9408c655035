"""Things that stand where a file is expected, and a user who may not read what he finds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 5 << 30)


def a_folder(path: Path) -> None:
    path.mkdir()


@contextmanager
def without_privileges() -> Iterator[None]:
    """The block runs as a user whom permissions hold for, which they do not for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
