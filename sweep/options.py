"""What all groups of options have in common; each group stands beside its owner, and ``config.py`` composes them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

WholeNumbers = Annotated[tuple[int, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
MOST_ROWS = 1_000_000
"""Upper bound for batch sizes: catches typos before they exhaust memory."""


class Options(BaseModel):
    """A group of settings. Unknown keys, wrong types, NaN and infinity are errors, and nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
