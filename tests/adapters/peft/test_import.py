"""What PEFT describes or has saved, taken over: the same layers, factors and outputs, or an error with every reason."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from sweep.adapters.fold import Folded, fold_full, fold_lora, linear_layers
from sweep.adapters.options import AdapterOptions
from sweep.adapters.peft.export import files
from sweep.adapters.peft.import_ import check_start, from_peft, resolved, restore_whole, start
from sweep.adapters.targets import select
from sweep.errors import ConfigError
from tests.support.builders import (
    InOrder,
    attach,
    lora,
    mlp,
    optimizer,
    padded_rank,
    pairs,
    randn,
    run,
    squared_error,
    training,
)

peft = pytest.importorskip("peft")

FOLDER = "adapter.peft = "


def saved_by_peft(base: Any, folder: Path, seed: int = 0, **settings: Any) -> Any:
    """An adapter that PEFT has trained, as far as random factors go for that, and saved in ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = peft.get_peft_model(base, peft.LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return model.eval()


def started(base: Any, folder: Path) -> Folded:
    adapter = resolved(AdapterOptions(kind="lora", peft=str(folder)))
    targets = select(adapter, list(linear_layers(base)), base.presets)
    check_start(folder, adapter, copy.deepcopy(base).to("meta"), targets)
    pack = [lora(init="mica", rank=3, dora=adapter.dora), adapter]
    folded = fold_lora(base, pack, [["layers.0"], targets], [0, 0], padded_rank(pack))
    start(folded, 1, folder)
    return folded


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["layers.0", "layers.1"], "r": 3, "lora_alpha": 5},
        {"target_modules": ["layers.1"], "r": 4, "use_rslora": True, "bias": "lora_only"},
        {
            "target_modules": r"layers\.\d",
            "r": 2,
            "bias": "all",
            "rank_pattern": {"layers.1": 4},
            "alpha_pattern": {"layers.0": 1.5},
        },
        {"target_modules": ["layers.0", "layers.1"], "use_dora": True, "r": 4, "bias": "lora_only"},
        {"target_modules": "all-linear", "exclude_modules": ["layers.0"], "init_lora_weights": "gaussian"},
    ],
    ids=["plain", "rslora", "patterns", "dora", "all-linear"],
)
def test_start_from_peft_has_the_same_outputs(settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = saved_by_peft(mlp(12, 20, 8), tmp_path, **settings)
    x = randn(6, 12)
    ours = started(mlp(12, 20, 8), tmp_path).outputs(x, sees=[0, 0]).view(2, 6, 8)[1]
    torch.testing.assert_close(ours, theirs(x), atol=1e-6, rtol=1e-6)
    assert (ours - mlp(12, 20, 8)(x)).abs().max() > 1e-2


def test_start_takes_modules_that_peft_trained_in_full(tmp_path: Path) -> None:
    theirs = saved_by_peft(mlp(12, 20, 8), tmp_path, target_modules=["layers.0"], modules_to_save=["layers.1"])
    base, x = mlp(12, 20, 8), randn(6, 12)
    adapter = resolved(AdapterOptions(kind="lora", peft=str(tmp_path)))
    assert adapter.save == ("layers.1",)
    check_start(tmp_path, adapter, base, ["layers.0"], ["layers.1"])
    folded = fold_lora(base, [adapter], [["layers.0"]], [0], padded_rank([adapter]), saved=["layers.1"])
    start(folded, 0, tmp_path)
    torch.testing.assert_close(folded.outputs(x, sees=[0]), theirs(x), atol=1e-6, rtol=1e-6)
    with pytest.raises(ConfigError, match="belongs to no adapted layer"):
        check_start(tmp_path, adapter, base, ["layers.0"])


def test_start_from_a_trials_own_adapter_is_where_it_ended(tmp_path: Path) -> None:
    for adapter in (
        lora(rank=3, bias="all", scaling="alpha"),
        lora(init="pissa", targets=["layers.1"]),
        lora(rank_pattern={"layers.1": 2}, alpha_pattern={"layers.0": 3.0}, scaling="alpha/sqrt_rank"),
        lora(init="olora", dora=True, rank_pattern={"layers.1": 2}),
    ):
        first = attach(mlp(12, 20, 8), adapter)
        run(first, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer(lr=1e-2)], training(steps=5))
        for name, content in files(first, 0, adapter, {}).items():
            (tmp_path / name).write_bytes(content)
        x = randn(6, 12)
        again = started(mlp(12, 20, 8), tmp_path).outputs(x, sees=[0, 0]).view(2, 6, 8)[1]
        torch.testing.assert_close(again, first.outputs(x, sees=[0]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"r": 4, "target_modules": ["b", "a"]}, {"rank": 4, "alpha": 8.0, "targets": ["a", "b"]}),
        (
            {"target_modules": "all-linear", "lora_alpha": 3, "lora_dropout": 0.5},
            {"rank": 8, "alpha": 3.0, "dropout": 0.5},
        ),
        (
            {"target_modules": r".*\.(q|v)_proj", "use_rslora": True},
            {"rank": 8, "targets": r".*\.(q|v)_proj", "scaling": "alpha/sqrt_rank"},
        ),
        (
            {"target_modules": ["a"], "layers_to_transform": 2, "bias": "all"},
            {"rank": 8, "targets": ["a"], "layers": [2], "bias": "all"},
        ),
        (
            {"target_modules": ["a"], "layers_to_transform": [1, 2], "init_lora_weights": "pissa"},
            {"rank": 8, "targets": ["a"], "layers": [1, 2], "init": "pissa"},
        ),
        ({"target_modules": ["a"], "init_lora_weights": "mica"}, {"rank": 8, "targets": ["a"], "init": "mica"}),
        ({"target_modules": ["a"], "use_dora": True}, {"rank": 8, "targets": ["a"], "dora": True}),
        (
            {"target_modules": ["a"], "rank_pattern": {"a": 2}, "alpha_pattern": {"a": 4}},
            {"rank": 8, "targets": ["a"], "rank_pattern": {"a": 2}, "alpha_pattern": {"a": 4.0}},
        ),
        (
            {"target_modules": ["a"], "modules_to_save": ["head", "b"]},
            {"rank": 8, "targets": ["a"], "save": ["b", "head"]},
        ),
        (
            {"target_modules": ["a"], "exclude_modules": ["z", "b"], "fan_in_fan_out": True},
            {"rank": 8, "targets": ["a"], "exclude": ["b", "z"]},
        ),
    ],
)
def test_from_peft_is_the_adapter_with_the_same_settings(
    settings: dict[str, Any], same: dict[str, Any], tmp_path: Path
) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path="org/model", **settings)
    expected = lora(**same)
    assert from_peft(config) == expected
    config.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    assert resolved(AdapterOptions(kind="lora", peft=str(file))) == expected
    assert from_peft(json.loads(file.read_text())) == expected
    assert resolved(expected) is expected


def test_from_peft_knows_or_refuses_every_field() -> None:
    """Of this PEFT: a field that we do not translate is an error as soon as it has a value."""
    plain = peft.LoraConfig(target_modules=["a"]).to_dict()
    from sweep.adapters.peft.import_ import NOT_OF_TRAINING, TRANSLATED

    assert set(plain) | {"runtime_config"} >= NOT_OF_TRAINING | TRANSLATED
    others = sorted(set(plain) - NOT_OF_TRAINING - TRANSLATED)
    assert len(others) > 15
    with pytest.raises(ConfigError) as caught:
        from_peft(plain | dict.fromkeys(others, True))
    assert sorted(caught.value.faults) == [f"{field} = True: is not supported" for field in others]


def test_from_peft_names_all_that_is_not_supported_at_once(tmp_path: Path) -> None:
    config = peft.LoraConfig(init_lora_weights="pissa_niter_4", trainable_token_indices=[1], layer_replication=[[0, 1]])
    config.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    with pytest.raises(ConfigError) as caught:
        resolved(AdapterOptions(kind="lora", peft=str(path)))
    assert caught.value.faults == (
        f"{FOLDER}{str(path)!r}: layer_replication = [[0, 1]]: is not supported",
        f"{FOLDER}{str(path)!r}: trainable_token_indices = [1]: is not supported",
        f"{FOLDER}{str(path)!r}: target_modules = None: must name the layers; PEFT's defaults for each kind of model are not known here",
        f"{FOLDER}{str(path)!r}: init_lora_weights = 'pissa_niter_4': must be one of True, gaussian, orthogonal, pissa, olora, mica",
    )
    with pytest.raises(ConfigError, match=r"peft_type = 'IA3': must be LORA"):
        from_peft(peft.IA3Config(target_modules=["a"], feedforward_modules=[]))
    with pytest.raises(ConfigError, match="r: Input should be greater than or equal to 1"):
        from_peft({"r": 0, "target_modules": ["a"]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda folder: (folder / "adapter_model.safetensors").unlink(),
            "adapter_model.safetensors: No such file or directory; give an adapter_config.json, or a folder",
        ),
        (
            lambda folder: (folder / "adapter_config.json").unlink(),
            "adapter_config.json: No such file or directory; give an adapter_config.json, or a folder",
        ),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{"),
            "adapter_config.json is not the JSON of a LoraConfig (Expecting",
        ),
        (
            lambda folder: (folder / "adapter_config.json").write_text("[]"),
            "adapter_config.json is not the JSON of a LoraConfig (it holds no fields)",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"no"),
            "adapter_model.safetensors is damaged (",
        ),
    ],
)
def test_resolved_says_in_one_line_why_a_folder_cannot_be_read(change: Any, says: str, tmp_path: Path) -> None:
    saved_by_peft(mlp(12, 20, 8), tmp_path, target_modules=["layers.0"])
    change(tmp_path)
    with pytest.raises(ConfigError) as caught:
        started(mlp(12, 20, 8), tmp_path)
    [fault] = caught.value.faults
    assert fault.startswith(f"{FOLDER}{str(tmp_path)!r}: {says}")


def test_check_start_refuses_an_adapter_for_another_model(tmp_path: Path) -> None:
    saved_by_peft(mlp(12, 20, 8), tmp_path, target_modules=["layers.0", "layers.1"], bias="all", r=2)
    for base, says in (
        (mlp(12, 20, 9), "lora_B.weight is (8, 2), not (9, 2)"),
        (mlp(12, 20, 8, 8), "layers.2.bias is missing"),
        (mlp(12, 8), "layers.1.base_layer.bias belongs to no adapted layer"),
    ):
        if len(base.widths) == 2:
            edit = tmp_path / "adapter_config.json"
            edit.write_text(edit.read_text().replace('"layers.1",', "").replace(',\n    "layers.1"', ""))
        with pytest.raises(ConfigError, match="was not made for this model") as caught:
            started(base, tmp_path)
        assert says in str(caught.value)


@pytest.mark.parametrize("init", ["pissa", "olora", "mica"])
def test_resolved_refuses_weights_that_are_no_plain_lora(init: str, tmp_path: Path) -> None:
    saved_by_peft(mlp(12, 20, 8), tmp_path, target_modules=["layers.0"], init_lora_weights=init, r=4)
    with pytest.raises(ConfigError, match=f"init_lora_weights = '{init}': no trial can start from these weights"):
        started(mlp(12, 20, 8), tmp_path)


def test_adapter_options_refuse_settings_beside_peft() -> None:
    with pytest.raises(ValueError, match="use adapter=peft, and leave out rank, dropout"):
        AdapterOptions(kind="lora", peft="x", rank=4, dropout=0.0)


def test_resolved_identifies_weights_and_not_their_place(tmp_path: Path) -> None:
    found = {}
    for place, seed in (("here", 0), ("there", 0), ("other", 1)):
        saved_by_peft(mlp(12, 20, 8), tmp_path / place, seed, target_modules=["layers.0"])
        found[place] = resolved(AdapterOptions(kind="lora", peft=str(tmp_path / place)))
    assert found["here"] == found["there"] != found["other"]
    assert found["here"].init is None
    assert found["here"].peft is not None
    assert len(found["here"].peft) == 16


@pytest.mark.parametrize("init", ["corda", "loftq", "lora_ga", "pissa_niter_4"])
def test_resolved_refuses_weights_whose_initialisation_moved_the_base(init: str, tmp_path: Path) -> None:
    saved_by_peft(mlp(12, 20, 8), tmp_path, target_modules=["layers.0"])
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": init}))
    with pytest.raises(ConfigError, match=f"init_lora_weights = '{init}': no trial can start from these weights"):
        resolved(AdapterOptions(kind="lora", peft=str(tmp_path)))


@pytest.mark.parametrize(
    "content", [b"no weights", save({"x": torch.zeros(2)}), save({"layers.0.weight": torch.zeros(2)})]
)
def test_restore_whole_refuses_weights_that_this_trial_did_not_leave(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors: was not left by this trial"):
        restore_whole(fold_full(mlp(4, 3)), tmp_path)
