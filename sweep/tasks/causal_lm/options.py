"""The options of the Hugging Face causal language models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweep import registry
from sweep.options import Options
from sweep.tasks.options import TaskOptions

if TYPE_CHECKING:
    from sweep.tasks.task import Task

VERSES = "verses"


class GenerateOptions(Options):
    """Answers written after training, by greedy decoding.

    ``prompts`` counts held-out rows, 0 for none; an answer has at most ``tokens`` tokens.
    """

    prompts: int = Field(default=0, ge=0)
    tokens: int = Field(default=64, ge=1)


class CausalLMOptions(TaskOptions):
    """A Hugging Face causal language model, as it is, on the user's data in its own tokens.

    ``model`` is a folder, a ``.gguf`` file, a name on the hub, or ``smollm2``. ``source_text``, ``target_text`` and
    ``test_text`` are files, or folders that ``datasets`` has saved, with rows of text, of prompts and completions, or
    of chats; null means modern English for the source and Wycliffe's English for the target, of which ``verses`` are
    the pairs. ``test_text`` is held out in the place of a part of the target. ``context`` counts tokens,
    ``eval_windows`` the blocks that are test examples and ``validation`` those that are evaluated meanwhile. ``loss_on``
    says which tokens of a prompt with an answer are learnt.
    """

    test_size = "eval_windows"
    unset: ClassVar[dict[str, Any]] = {
        "validation": 0,
        "test_text": None,
        "loss_on": "completion",
        "generate": {"prompts": 0, "tokens": 64},
    }

    name: Literal["causal_lm"]
    model: str
    context: int = Field(ge=1)
    eval_windows: int = Field(ge=1)
    validation: int = Field(default=0, ge=0)
    source_text: str | None
    target_text: str | None
    test_text: str | None = None
    loss_on: Literal["completion", "all"] = "completion"
    generate: GenerateOptions = GenerateOptions()

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder or a GGUF file of the user's own."""
        return self.model.endswith(".gguf") or Path(self.model).is_dir()

    def own_paths(self) -> set[str]:
        """The data that are the user's, and the model where it is local."""
        texts = {name: getattr(self, name) for name in ("source_text", "target_text", "test_text")}
        own_texts = {name for name, text in texts.items() if text not in (None, VERSES)}
        return own_texts | ({"model"} if self.is_local else set())

    def cached_files(self, cache_folder: Path) -> list[Path]:
        """The model's files, where the cache has them; each machine makes the tokens by itself, once."""
        folder = registry.load("sweep.models.folder:folder_of")(self.model, cache_folder)
        return sorted(folder.iterdir()) if folder.is_relative_to(cache_folder) else []

    def fingerprint(self, cache_folder: Path) -> str:
        """The SHA-256 of the rows and of the model's files."""
        return registry.load("sweep.tasks.causal_lm.data:fingerprint")(self, cache_folder)

    def make(self, cache_folder: Path) -> "Task":
        """Read the rows and number their tokens."""
        return registry.load("sweep.tasks.causal_lm.task:causal_lm")(self, cache_folder)

    @model_validator(mode="after")
    def _check(self) -> "CausalLMOptions":
        if self.test_text == VERSES or self.source_text == VERSES:
            raise ValueError("verses can only be the target_text, which comes with held-out chapters of its own")
        if self.test_text is not None and self.target_text == VERSES:
            raise ValueError(
                "test_text: verses are held out by chapter; give a test_text with a target_text of your own"
            )
        return self
