"""What is asked of a model of Hugging Face before it is a task's base, where that is not what most models have."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

from sweep.errors import ConfigError
from sweep.models import hugging_face
from sweep.models.folder import folder_of
from sweep.models.hugging_face import as_model, takes_blocks


class Bare(nn.Module):
    """A language model that takes tokens alone and does not say which layer is its head."""

    config = SimpleNamespace(vocab_size=5)

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(5, 4), nn.Linear(4, 5)

    def forward(self, tokens: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.out(self.embedding(tokens)))


def test_as_model_counts_a_head_that_is_not_named_among_the_layers() -> None:
    assert as_model(Bare()).presets["all_linear"] == ["out"]


def test_takes_blocks_is_false_of_a_model_without_positions() -> None:
    assert not takes_blocks(as_model(Bare()))


def test_transformers_version_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(hugging_face, "version", missing)
    with pytest.raises(ConfigError, match="needs Hugging Face's transformers; install it with"):
        hugging_face.transformers_version()


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000], ids=["cut", "list", "nested"])
def test_folder_of_refuses_a_configuration_that_is_not_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"config\.json: is not the JSON of a model's configuration"):
        folder_of(str(tmp_path), tmp_path)
