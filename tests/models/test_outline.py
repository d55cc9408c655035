"""The outline of a model, which a plan reads in the place of the model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sweep.adapters.fold import linear_layers
from sweep.adapters.peft.export import transposed_in_files
from sweep.models import hugging_face
from sweep.models.outline import outline_of
from sweep.resolve import resolve
from sweep.tasks.causal_lm.task import causal_lm
from tests.support import hugging_face as tiny
from tests.support.commands import config


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mamba"])
def test_outline_has_the_modules_of_the_model(family: str, tmp_path: Path) -> None:
    folder = tiny.save(family, tmp_path / "model")
    model = hugging_face.load(folder)
    for _ in ("drawn", "read"):
        outline_of.cache_clear()
        drawn = outline_of(folder, tmp_path).model()
        assert shapes(drawn) == shapes(model)  # of tied tensors, the first name alone
        assert [name for name, _ in drawn.named_modules()] == [name for name, _ in model.named_modules()]
        assert {name: (layer.in_features, layer.out_features) for name, layer in linear_layers(drawn).items()} == {
            name: (layer.in_features, layer.out_features) for name, layer in linear_layers(model).items()
        }
        assert transposed_in_files(drawn) == transposed_in_files(model)
        assert {name: list(layers) for name, layers in drawn.presets.items()} == model.presets
        assert all(parameter.is_meta for parameter in drawn.parameters())


def test_outline_is_drawn_again_for_another_template(tmp_path: Path) -> None:
    folder = tiny.save("llama", tmp_path / "model")
    assert outline_of(folder, tmp_path).template is None
    (folder / hugging_face.TEMPLATE).write_text(tiny.TEMPLATE)
    hugging_face.tokenizer_of.cache_clear()
    outline_of.cache_clear()
    assert outline_of(folder, tmp_path).template == tiny.TEMPLATE


def test_plan_of_a_known_model_asks_transformers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny.chats("llama", tmp_path)
    options = options.model_copy(update={"generate": options.generate.model_copy(update={"prompts": 3})})
    settings = options.model_dump(exclude={"name", "generate", "test_text"})
    chosen = [f"task.{name}={value}" for name, value in settings.items()]
    asked = config("task=causal_lm", *chosen, "task.generate.prompts=3", f"cache={tmp_path / 'cache'}")
    first, task = resolve(asked), causal_lm(options, tmp_path / "cache")

    def never(*_: object) -> Any:
        raise AssertionError

    for name in ("import_transformers", "configuration", "tokenizer_of", "skeleton", "load"):
        monkeypatch.setattr(hugging_face, name, never)
    for cached in (outline_of, resolve.__globals__["meta_model"], resolve.__globals__["_layers"]):
        clear: Callable[[], None] = cached.cache_clear
        clear()
    assert resolve(asked) == first
    again = causal_lm(options, tmp_path / "cache")
    assert (again.prompts, again.notes) == (task.prompts, task.notes)
    assert replace(again.about, modules=()) == replace(task.about, modules=())
