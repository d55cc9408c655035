"""The options of the character-level transformer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweep import registry
from sweep.tasks import texts
from sweep.tasks.options import TaskOptions
from sweep.tasks.pretraining import PretrainingOptions

if TYPE_CHECKING:
    from sweep.tasks.task import Task


class TransformerOptions(TaskOptions):
    """A character-level Llama-style decoder, pre-trained on one text and adapted to another.

    ``source_text`` and ``target_text`` are files, plain text or ``.jsonl`` with a ``text`` in each line; null
    means modern English (World English Bible) and Wycliffe's English of the 14th century. ``context`` counts
    characters, ``eval_windows`` the windows that are test examples and ``validation`` those that are evaluated meanwhile.
    """

    target_only = ("eval_windows",)
    test_size = "eval_windows"
    unset: ClassVar[dict[str, Any]] = {"validation": 0}

    name: Literal["transformer"]
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    hidden: int = Field(ge=1)
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    validation: int = Field(default=0, ge=0)
    source_text: str | None
    target_text: str | None
    pretraining: PretrainingOptions

    def own_paths(self) -> set[str]:
        """The texts that are the user's."""
        return {name for name in ("source_text", "target_text") if getattr(self, name) is not None}

    def read_texts(self) -> tuple[str, str]:
        """The source and the target text. Raises ConfigError for a file that is missing, not UTF-8 or too short."""
        source, target = ("\n".join(part) for part in texts.documents_of(self.source_text, self.target_text))
        for key, text in (("source_text", source), ("target_text", target)):
            texts.require_windows(text, self.context, key, "characters")
        return source, target

    def fingerprint(self, cache_folder: Path) -> str:
        """The SHA-256 of both texts."""
        return texts.fingerprint(self.read_texts())

    def make(self, cache_folder: Path) -> "Task":
        """Read both texts and number their characters."""
        return registry.load("sweep.tasks.transformer.task:transformer")(self)

    @model_validator(mode="after")
    def _check(self) -> "TransformerOptions":
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")
        return self
