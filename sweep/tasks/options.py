"""What the options of every task have in common."""

from typing import ClassVar, Literal

from pydantic import Field

from sweep.options import MOST_ROWS, Options


class PretrainingOptions(Options):
    """How a base is trained from scratch on the source domain.

    With ``cosine`` by AdamW (decay 0.01, gradients clipped at 1) after a warm-up; with ``constant`` by plain Adam.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1, le=MOST_ROWS)
    lr: float = Field(gt=0)
    schedule: Literal["cosine", "constant"]
    seed: int = Field(ge=0)


class TaskOptions(Options):
    """What a user can set of a task; ``name`` chooses it."""

    name: str

    target_only: ClassVar[tuple[str, ...]] = ()
    """Settings that leave the base as it is: they concern the domain to adapt to, or the evaluation."""

    def own_paths(self) -> set[str]:
        """Settings that say where the user's own data lie; what they are is in the data's fingerprint."""
        return set()
