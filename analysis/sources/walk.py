"""Finds files of other programs below a folder that somebody else may have made."""

import stat
from collections.abc import Callable
from pathlib import Path

DEEPEST_FOLDER = 8
"""How far below a folder files are looked for; W&B puts its own two levels below ``wandb``."""


def files_below(folder: Path, wanted: Callable[[str], bool], skipped: str = "") -> list[Path]:
    """The files below ``folder`` whose name is ``wanted``, in the order of their names.

    Links are not followed, so that a file appears once; folders of the name ``skipped`` are left out.
    """
    paths: list[Path] = []
    level = [folder]
    for _ in range(DEEPEST_FOLDER):
        below: list[Path] = []
        for item in (item for parent in level for item in _content(parent)):
            if wanted(item.name):
                paths.append(item)
            elif item.name != skipped and stat.S_ISDIR(item.lstat().st_mode):
                below.append(item)
        level = below
    return sorted(path for path in paths if not path.is_symlink())


def _content(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # gone, or closed to this user
        return []
