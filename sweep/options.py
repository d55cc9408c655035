"""What all groups of options have in common; each group stands beside its owner, and ``config.py`` composes them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

WholeNumbers = Annotated[tuple[int, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
MOST_ROWS = 1_000_000
"""Upper bound for batch sizes: catches typos before they exhaust memory."""


class Options(BaseModel):
    """A group of settings. Unknown keys, wrong types, NaN and infinity are errors, and nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    unset: ClassVar[Mapping[str, Any]] = {}
    """Later settings with the value at which a trial is what it was before there were any: it also has the same id."""

    def without_unset(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The plain ``values`` of these options but for those in ``unset``."""
        return {name: value for name, value in values.items() if (name, value) not in self.unset.items()}
