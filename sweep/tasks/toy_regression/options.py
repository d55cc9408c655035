"""The options of the toy regression."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweep import registry
from sweep.options import WholeNumbers
from sweep.tasks.options import TaskOptions

if TYPE_CHECKING:
    from sweep.tasks.task import Task


class ToyRegressionOptions(TaskOptions):
    """Regression on a planted low-rank shift of a linear map (``hidden: []``) or of a small MLP.

    ``data: tutorial`` is the random 64→10 data of the introductory LoRA tutorial instead: nothing can be
    learnt from it beyond its 1,000 samples, and the other data settings are not used. ``held_out`` counts the test
    examples and ``validation`` the fresh ones that are evaluated meanwhile.
    """

    test_size = "held_out"
    unset: ClassVar[dict[str, Any]] = {"validation": 0}

    name: Literal["toy_regression"]
    data: Literal["planted", "tutorial"]
    in_features: int = Field(ge=1)
    out_features: int = Field(ge=1)
    hidden: WholeNumbers
    samples: int = Field(ge=2)
    held_out: int = Field(ge=2)
    validation: int = Field(default=0, ge=0)
    shift_rank: int = Field(ge=1)
    shift_scale: float = Field(gt=0)
    noise: float = Field(ge=0)
    inputs: Literal["white", "anisotropic"]
    data_seed: int = Field(ge=0)

    def fingerprint(self, cache_folder: Path) -> str:
        """Which of the two kinds is drawn; nothing is read."""
        return f"generated:{self.data}"

    def make(self, cache_folder: Path) -> "Task":
        """Draw the data of both domains."""
        return registry.load("sweep.tasks.toy_regression.task:toy_regression")(self)

    @model_validator(mode="after")
    def _check(self) -> "ToyRegressionOptions":
        if self.data == "tutorial" and (self.in_features, self.out_features, self.hidden) != (64, 10, ()):
            raise ValueError("data=tutorial has in_features=64, out_features=10 and hidden=[]")
        widths = (self.in_features, *self.hidden, self.out_features)
        if self.shift_rank > min(widths):
            raise ValueError(f"shift_rank={self.shift_rank} is above {min(widths)}, the largest rank of the map")
        return self
