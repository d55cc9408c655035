"""Texts, digits, adapters, models and expressions of somebody else: refused by name, before they cost time or memory."""

import gzip
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from safetensors.numpy import save_file

from sweep.adapters import targets
from sweep.adapters.options import AdapterOptions
from sweep.adapters.targets import select
from sweep.errors import ConfigError
from sweep.resolve import resolve
from tests.support.commands import config
from tests.support.damage import a_device, a_folder, a_hole, a_pipe, without_privileges
from tests.support.fuzz import plan

GIB = 2**30
PEFT = ("task=toy_regression", "adapter=peft")
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["0"]}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Whatever is read here takes little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20  # KiB


def refusal(*overrides: str) -> str:
    """What is said against a trial, as the command says it after its name (which each kind of file shows once)."""
    with pytest.raises(ConfigError) as refused:
        resolve(config(*overrides))
    return str(refused.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which nothing is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


MAKERS = [a_pipe, a_device, a_hole, a_folder]


@pytest.mark.parametrize("make", MAKERS)
def test_texts_refuse_what_is_no_text(make: Callable[[Path], None], here: Path) -> None:
    make(here / "text")
    said = refusal("task=transformer_tiny", "task.source_text=text")
    assert said.startswith("task.source_text = 'text': ")
    assert "regular file" in said or "at most" in said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("text", ("task=transformer_tiny", "task.source_text=text")),
        ("own/ablation/mine.yaml", ("task=toy_regression", "--config-dir", "own", "+ablation=mine")),
    ],
)
def test_file_that_may_not_be_read_is_named(name: str, arguments: tuple[str, ...]) -> None:
    with TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        folder, file = Path(place), Path(place, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# @package _global_\n")
        folder.chmod(0o777)
        file.chmod(0)
        with without_privileges():
            said = plan([*arguments, "tracker=none", "--dry-run"], folder)
    assert name in said
    assert said.endswith("Permission denied")


@pytest.mark.parametrize("make", [a_pipe, a_device, a_hole])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_digits_refuse_what_is_no_file(make: Callable[[Path], None], ending: str, here: Path) -> None:
    (here / "digits").mkdir()
    make(here / "digits" / f"t10k-labels-idx1-ubyte{ending}")
    said = refusal("task=mnist", "task.data=digits")
    assert said.startswith(f"task.data: digits/t10k-labels-idx1-ubyte{ending} cannot be read (")


def test_digits_are_unpacked_to_their_size_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    packed = tmp_path / "digits/t10k-labels-idx1-ubyte.gz"
    packed.write_bytes(64 * gzip.compress(bytes(64 * 2**20), 1))  # 4 GiB in 64 members
    assert packed.stat().st_size < 47_040_016
    said = plan(["task=mnist", "tracker=none", "--dry-run", "task.data=digits"], tmp_path)
    assert said.startswith(
        "lora-sweep: task.data: t10k-labels-idx1-ubyte in digits is corrupt: its SHA-256 is not that of the published file"
    )


def adapter(folder: Path, config: Any = CONFIG) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapter_refuses_what_is_no_file(make: Callable[[Path], None], name: str, here: Path) -> None:
    adapter(here / "own")
    (here / "own" / name).unlink(missing_ok=True)
    make(here / "own" / name)
    said = refusal(*PEFT, "adapter.peft=own")
    assert said.startswith(f"adapter.peft = 'own': {name}")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"r": None}, "r"),
        ({"r": "four"}, "r"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": [1]}, "lora_alpha"),
        ({"lora_dropout": {}}, "lora_dropout"),
        ({"target_modules": 5}, "target_modules"),
        ({"target_modules": [5]}, "target_modules"),
        ({"layers_to_transform": "all"}, "layers_to_transform"),
        ({"init_lora_weights": []}, "init_lora_weights"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"exclude_modules": 3}, "exclude_modules"),
        ({"modules_to_save": {"a": 1}}, "modules_to_save"),
        ({"r": 10**400}, "r"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
    ],
)
def test_damaged_adapter_config_names_file_and_field(changes: dict[str, Any], field: str, here: Path) -> None:
    (here / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    said = refusal(*PEFT, "adapter.peft=adapter_config.json")
    assert said.startswith(f"adapter.peft = 'adapter_config.json': {field}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "[" * 100_000, "1" + "0" * 5000, '{"r": ' + "1" * 5000 + "}", "\udcff"]
)
def test_adapter_config_that_is_no_json_is_named(text: str, here: Path) -> None:
    (here / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    said = refusal(*PEFT, "adapter.peft=adapter_config.json")
    assert said.startswith("adapter.peft = 'adapter_config.json': adapter_config.json is not the JSON of")


def test_adapter_weights_that_are_no_floating_point_numbers_are_refused(tmp_path: Path) -> None:
    import numpy as np

    prefix = "base_model.model.0"
    tensors = {
        f"{prefix}.lora_A.weight": np.ones((4, 64), np.int32),
        f"{prefix}.lora_B.weight": np.ones((10, 4), np.int32),
    }
    save_file(tensors, adapter(tmp_path / "own") / "adapter_model.safetensors")
    said = plan([*PEFT, "--dry-run", "tracker=none", "adapter.peft=own"], tmp_path)
    assert said.startswith("lora-sweep: adapter.peft = 'own': ")
    assert "lora_A.weight is of type I32, not of floating-point numbers" in said


def model(folder: Path, config: dict[str, Any] = LLAMA) -> Path:
    """A model of somebody else with an empty file of weights."""
    pytest.importorskip("transformers", reason="pip install 'lora-sweep[hf]'")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"num_attention_heads": "two"}, "num_attention_heads = 'two'"),
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers = 1000000"),
        ({"num_hidden_layers": None}, "num_hidden_layers = None"),
        ({"hidden_size": -16}, "hidden_size = -16"),
        ({"hidden_size": 1.5}, "hidden_size = 1.5"),
        ({"vocab_size": 10**400}, "vocab_size = 1000"),
        ({"hidden_size": True}, "hidden_size = True"),
    ],
)
def test_damaged_model_config_names_file_and_field(changes: dict[str, Any], field: str, here: Path) -> None:
    model(here / "model", LLAMA | changes)
    said = refusal("task=causal_lm", "task.model=model")
    assert said.startswith(f"task.model = 'model': config.json: {field}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("make", [a_pipe, a_device, a_hole])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_model_refuses_what_is_no_file(make: Callable[[Path], None], name: str, here: Path) -> None:
    model(here / "model")
    (here / "model" / name).unlink(missing_ok=True)
    make(here / "model" / name)
    said = refusal("task=causal_lm", "task.model=model")
    assert said.startswith(f"task.model = 'model': {name}: ")


def test_model_whose_config_is_no_json_is_named(tmp_path: Path) -> None:
    (model(tmp_path / "model") / "config.json").write_text("{")
    said = plan(["task=causal_lm", "tracker=none", "--dry-run", "task.model=model"], tmp_path)
    assert said.startswith("lora-sweep: task.model = 'model': cannot be used as a causal language model: ")
    assert "config.json' is not a valid JSON file" in said
    assert len(said.splitlines()) == 1


def options(**changes: Any) -> AdapterOptions:
    plain = {"rank": 4, "alpha": 4, "init": "kaiming", "scaling": "alpha/rank", "dropout": 0, "bias": "none"}
    return AdapterOptions.model_validate({"kind": "lora"} | plain | changes)


SLOW = "(x+x+)+y"


@pytest.mark.parametrize(
    "adapter",
    [
        options(targets=SLOW),
        options(targets=".*", exclude=SLOW),
        options(targets=".*", rank_pattern={SLOW: 4}),
        options(targets=".*", alpha_pattern={SLOW: 4.0}),
    ],
    ids=["targets", "exclude", "rank_pattern", "alpha_pattern"],
)
def test_select_stops_an_expression_that_backtracks_without_end(
    adapter: AdapterOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert targets.MATCHING_S == 2
    monkeypatch.setattr(targets, "MATCHING_S", 0.2)
    with pytest.raises(ConfigError, match=r"takes longer than 0\.2 s to match the names of the layers"):
        select(adapter, ["x" * 60, "other"], {})


@pytest.mark.parametrize("expression", ["(" * 5000 + ")" * 5000, "a{99999999999999}", "(?P<a", "[z-a]"])
def test_select_refuses_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.targets = "):
        select(options(targets=expression), ["layer"], {})
