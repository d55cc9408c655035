"""The options of the character-level transformer."""

from typing import Literal

from pydantic import Field, model_validator

from sweep.tasks.options import PretrainingOptions, TaskOptions


class TransformerOptions(TaskOptions):
    """A character-level Llama-style decoder, pre-trained on one text and adapted to another.

    ``source_text`` and ``target_text`` are files, plain text or ``.jsonl`` with a ``text`` in each line; null
    means modern English (World English Bible) and Wycliffe's English of the 14th century. ``context`` and
    ``eval_windows`` count characters and windows.
    """

    target_only = ("eval_windows",)

    name: Literal["transformer"]
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    hidden: int = Field(ge=1)
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    source_text: str | None
    target_text: str | None
    pretraining: PretrainingOptions

    def own_paths(self) -> set[str]:
        """The texts that are the user's."""
        return {name for name in ("source_text", "target_text") if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _check(self) -> "TransformerOptions":
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")
        return self
