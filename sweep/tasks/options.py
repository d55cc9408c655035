"""What the options of every task say: what the user chose, and what follows from it before anything is read."""

from abc import abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sweep.options import Options

if TYPE_CHECKING:
    from sweep.tasks.task import Task


class TaskOptions(Options):
    """What a user can set of a task; ``name`` chooses it. Options import without torch; the task itself is built late."""

    name: str

    target_only: ClassVar[tuple[str, ...]] = ()
    """Settings that leave the base as it is: they concern the domain to adapt to, or the evaluation."""

    test_size: ClassVar[str | None] = None
    """The setting that counts the test examples, where there may be more of them."""

    def own_paths(self) -> set[str]:
        """Settings that say where the user's own data lie; the data themselves are in ``fingerprint``."""
        return set()

    def cached_files(self, cache_folder: Path) -> list[Path]:
        """The files below ``cache_folder`` that the task reads, so that another machine can be given them."""
        return []

    @abstractmethod
    def fingerprint(self, cache_folder: Path) -> str:
        """A short name for the exact data that the task reads: their kind and, of files, a SHA-256.

        Raises ConfigError when a file is missing or not what it should be.
        """

    @abstractmethod
    def make(self, cache_folder: Path) -> "Task":
        """Read or draw the data, and make the task of them; ``build`` calls it once."""

    def build(self, cache_folder: Path) -> "Task":
        """The task; equal options give the same object again."""
        return _build(self, cache_folder)


@cache
def _build(options: TaskOptions, cache_folder: Path) -> "Task":
    return options.make(cache_folder)
