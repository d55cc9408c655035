"""What a trial leaves is loaded by PEFT itself, on the base as it was, and computes the same."""

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from sweep.adapters.fold import Folded
from sweep.adapters.options import AdapterOptions
from sweep.adapters.peft import export
from sweep.adapters.peft.export import files
from sweep.adapters.peft.placement import placement_note
from sweep.registry import INITS
from tests.support.builders import (
    FULL,
    NONE,
    OUTPUTS,
    InOrder,
    attach,
    bits,
    equal,
    llama,
    lora,
    mlp,
    next_token,
    optimizer,
    pairs,
    randn,
    run,
    squared_error,
    tokens,
    training,
)


def trained(base: Any, *adapters: AdapterOptions) -> Folded:
    """A pack after some steps on random numbers."""
    folded = attach(base, *adapters, seeds=range(len(adapters)))
    if hasattr(base, "widths"):
        task, batches = squared_error(), InOrder(pairs(base.widths[0], base.widths[-1], rows=4, batches=3))
    else:
        task, batches = next_token(3), tokens(3)
    settings = [optimizer(lr=1e-2)] * len(adapters)
    run(folded, task, batches, settings, training(steps=5), seeds=range(len(adapters)))
    return folded


def write(folded: Folded, trial: int, adapter: AdapterOptions, folder: Path) -> Path:
    folder.mkdir()
    for name, content in export.files(folded, trial, adapter, {}).items():
        (folder / name).write_bytes(content)
    return folder


def loaded_by_peft(base: Any, folder: Path) -> Any:
    """PEFT on a copy of ``base``; a key that is missing or unknown would be a warning, and so an error here."""
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder))


def assert_same_in_peft(base: Any, x: Tensor, adapters: list[AdapterOptions], tmp_path: Path) -> list[Any]:
    before = bits(base)
    folded = trained(base, *adapters)
    together = folded.outputs(x, sees=[0] * len(adapters)).view(len(adapters), *base(x).shape)
    loaded = []
    for trial, adapter in enumerate(adapters):
        theirs = loaded_by_peft(base, write(folded, trial, adapter, tmp_path / str(trial)))
        ours = together[trial]
        assert (theirs(x) - ours).abs().max() <= OUTPUTS * max(1.0, ours.abs().max().item())
        assert (ours - base(x)).abs().max() > 1e-3  # something was trained
        weights = {
            name.removeprefix("base_model.model.").replace(".base_layer", ""): t for name, t in bits(theirs).items()
        }
        assert all(torch.equal(weights[name], before[name]) for name in before if not name.endswith("bias"))
        loaded.append(theirs)
    return loaded


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt_rank", "alpha"])
@pytest.mark.parametrize("init", INITS.names)
def test_export_of_every_init_and_scaling_loads_onto_the_untouched_base(
    init: str, scaling: str, tmp_path: Path
) -> None:
    alpha = 0.1 if init == "both_random" else 3.0
    # the second trial makes the first a part of a pack with padding, and with offsets that are not its own
    adapters = [lora(init=init, rank=4, alpha=alpha, scaling=scaling), lora(init="pissa", rank=3, targets=["layers.1"])]
    assert_same_in_peft(mlp(12, 20, 8), randn(6, 12), adapters, tmp_path)


@pytest.mark.parametrize("init", ["kaiming", "pissa", "olora"])
def test_export_of_chosen_layers_of_a_decoder_loads(init: str, tmp_path: Path) -> None:
    adapters = [lora(init=init, targets="qv", layers=(1,)), lora(init=init, targets=["down_proj", "head"])]
    first, second = assert_same_in_peft(llama(), tokens(1).held_out.inputs, adapters, tmp_path)
    wrapped = [
        {name for name, module in model.named_modules() if hasattr(module, "lora_A")} for model in (first, second)
    ]
    assert wrapped[0] == {f"base_model.model.blocks.1.attention.{name}" for name in ("q_proj", "v_proj")}
    assert len(wrapped[1]) == 3


@pytest.mark.parametrize("settings", [{"save": ["layers.0"]}, {"save": ["layers.1"], "bias": "all", "dora": True}])
def test_export_of_modules_trained_in_full_loads(settings: dict[str, Any], tmp_path: Path) -> None:
    base, adapter, x = mlp(12, 20, 8), lora(**settings), randn(6, 12)
    folded = trained(base, adapter)
    theirs = loaded_by_peft(base, write(folded, 0, adapter, tmp_path / "adapter"))
    assert theirs.peft_config["default"].modules_to_save == settings["save"]
    torch.testing.assert_close(theirs(x), folded.outputs(x, sees=[0]), atol=OUTPUTS * 4, rtol=OUTPUTS)
    assert not torch.allclose(theirs(x), base(x), atol=1e-3)


@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_export_of_dora_loads_with_its_lengths(init: str, tmp_path: Path) -> None:
    adapters = [lora(init=init, dora=True, bias="all"), lora(rank=3, dora=True, bias="all", targets=["layers.1"])]
    first, _ = assert_same_in_peft(mlp(12, 20, 8), randn(6, 12), adapters, tmp_path)
    assert first.peft_config["default"].use_dora


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt_rank", "alpha"])
@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_export_of_rank_and_alpha_patterns_loads(init: str, scaling: str, tmp_path: Path) -> None:
    patterns: dict[str, Any] = {"rank_pattern": {"layers.0": 2}, "alpha_pattern": {"layers.1": 5.0}, "scaling": scaling}
    [theirs] = assert_same_in_peft(mlp(12, 20, 8), randn(6, 12), [lora(init=init, alpha=3.0, **patterns)], tmp_path)
    growth = 1 + (init == "pissa")
    assert [layer.r["default"] for layer in theirs.base_model.model.layers] == [2 * growth, 4 * growth]


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_export_of_biases_is_where_peft_has_them(bias: str, tmp_path: Path) -> None:
    adapters = [lora(bias=bias, targets=["layers.0"]), lora(bias=bias, init="milora")]
    base = mlp(12, 20, 8)
    first, _ = assert_same_in_peft(base, randn(6, 12), adapters, tmp_path)
    assert first.peft_config["default"].bias == bias
    theirs = [first.base_model.model.layers[0].base_layer, first.base_model.model.layers[1]]
    moved = [not torch.equal(own.bias, their.bias) for own, their in zip(base.linears, theirs, strict=True)]
    assert moved == [bias in ("all", "lora_only"), bias == "all"]


def test_to_peft_doubles_the_rank_of_a_moved_base_and_keeps_the_scaling(tmp_path: Path) -> None:
    folded = trained(mlp(12, 20, 8), lora(init="pissa", rank=3, alpha=12.0))
    config, tensors = export.to_peft(folded, 0, lora(init="pissa", rank=3, alpha=12.0))
    assert (config["r"], config["lora_alpha"]) == (6, 24)
    assert tensors["base_model.model.layers.0.lora_A.weight"].shape == (6, 12)
    assert tensors["base_model.model.layers.0.lora_B.weight"].shape == (20, 6)


def test_files_of_full_fine_tuning_are_a_state_dict_and_of_none_nothing(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folded = trained(mlp(12, 20, 8), FULL)
    folder = write(folded, 0, FULL, tmp_path / "full")
    plain = mlp(12, 20, 8, seed=1)
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    assert equal(bits(plain), bits(folded.model))
    assert export.files(attach(mlp(12, 20, 8), NONE), 0, NONE, {}) == {}


def test_files_say_what_the_base_is(tmp_path: Path) -> None:
    adapter = lora(rank=2, alpha=0.5, dropout=0.25)
    about = {"task_type": "CAUSAL_LM", "base_model_name_or_path": "org/name"}
    written = json.loads(export.files(attach(mlp(4, 4), adapter), 0, adapter, about)["adapter_config.json"])
    assert written["task_type"] == "CAUSAL_LM"
    assert written["base_model_name_or_path"] == "org/name"
    assert (written["r"], written["lora_alpha"], written["lora_dropout"]) == (2, 0.5, 0.25)


def test_placement_note_says_what_keeps_peft_from_loading_the_adapter() -> None:
    base = mlp(4, 3)
    made = files(attach(base, lora(rank=2)), 0, lora(rank=2), {})
    note = placement_note(made, nn.Sequential(nn.Linear(4, 3)))
    assert note.startswith(f"PEFT {peft.__version__} cannot load adapter/: ")
    assert "layers.0" in note
    assert "\n" not in note
