"""The options of the Hugging Face causal language models."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sweep.tasks.options import TaskOptions


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
        """Whether the model is a folder or a GGUF file of the user's own."""
        return self.model.endswith(".gguf") or Path(self.model).is_dir()

    def own_paths(self) -> set[str]:
        """The texts that are the user's, and the model where it is a folder."""
        texts = {name for name in ("source_text", "target_text") if getattr(self, name) is not None}
        return texts | ({"model"} if self.is_local else set())
