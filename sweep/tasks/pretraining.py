"""The options of a base that is trained here."""

from typing import Literal

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
