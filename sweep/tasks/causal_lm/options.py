"""The options of the Hugging Face causal language models."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sweep import registry
from sweep.tasks import texts
from sweep.tasks.options import TaskOptions

if TYPE_CHECKING:
    from sweep.tasks.task import Task


class CausalLMOptions(TaskOptions):
    """A Hugging Face causal language model, as it is, on the user's texts in its own tokens.

    ``model`` is a folder or a name on the hub. The texts are as those of ``transformer``; ``context`` counts
    tokens.
    """

    name: Literal["causal_lm"]
    model: str
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    source_text: str | None
    target_text: str | None

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder."""
        return Path(self.model).is_dir()

    def own_paths(self) -> set[str]:
        """The texts that are the user's, and the model where it is a folder."""
        own_texts = {name for name in ("source_text", "target_text") if getattr(self, name) is not None}
        return own_texts | ({"model"} if self.is_local else set())

    def fingerprint(self, cache_folder: Path) -> str:
        """The SHA-256 of both texts and of the model's files."""
        from sweep.models.hugging_face import folder_of, sha256_of  # needs torch

        joined = tuple("\0".join(documents) for documents in texts.documents_of(self.source_text, self.target_text))
        return f"{texts.fingerprint(joined)} model:{sha256_of(folder_of(self.model))[:16]}"

    def make(self, cache_folder: Path) -> "Task":
        """Read both texts and number their tokens."""
        return registry.load("sweep.tasks.causal_lm.task:causal_lm")(self)
