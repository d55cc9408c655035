"""Unmodified Hugging Face models of several families: our layer, loop and files beside PEFT's."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.adapters.fold import linear_layers
from sweep.adapters.options import AdapterOptions
from sweep.adapters.peft import export
from sweep.adapters.peft.import_ import check_start, start
from sweep.adapters.peft.placement import placement_note
from sweep.models.hugging_face import FromConv1D, as_model, without_dropout
from tests.adapters.test_peft import their_trace
from tests.support.builders import FULL, OUTPUTS, TRACE, attach, lora, next_token, optimizer, run, tokens, training
from tests.support.hugging_face import CONFIGS, VOCABULARY, network

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks transformers

FAMILIES = sorted(CONFIGS)
BATCHES = tokens(20, VOCABULARY)
TOKENS = BATCHES.held_out.inputs
PACK = [lora(rank=4), lora(init="gaussian", rank=3, targets="attention", scaling="alpha/sqrt_rank"), lora(init="pissa")]


def ours(family: str) -> Any:
    """The model as task=causal_lm loads it: no dropout, logits as its output, linear layers for Conv1D."""
    return as_model(network(family, without_dropout)).eval().requires_grad_(False)


def on_peft(family: str, **settings: Any) -> Any:
    """PEFT's own LoRA on a model of the same weights that we have not touched."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(network(family).eval(), LoraConfig(fan_in_fan_out=family == "gpt2", **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_hugging_face_model_computes_what_it_did(family: str) -> None:
    expected = network(family).eval()(TOKENS).logits
    assert expected.std() > 0.1
    assert (ours(family)(TOKENS) - expected).abs().max() <= OUTPUTS * expected.abs().max()
    transposed = [name for name, layer in linear_layers(ours(family)).items() if isinstance(layer, FromConv1D)]
    assert len(transposed) == (8 if family == "gpt2" else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_all_linear_are_those_of_peft(family: str) -> None:
    theirs = on_peft(family, r=4, target_modules="all-linear")
    folded = attach(ours(family), lora(rank=4))
    adapted = {
        name.removeprefix("base_model.model.") for name, module in theirs.named_modules() if hasattr(module, "lora_A")
    }
    assert set(folded.layers) == adapted
    how = run(folded, next_token(1), BATCHES, [optimizer()], training(steps=1)).trained
    trainable, total = theirs.get_nb_trainable_parameters()
    assert (how.trainable[0], folded.base_params + how.trainable[0]) == (trainable, total)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_outputs_and_twenty_steps_are_those_of_peft_packed_and_alone(family: str) -> None:
    """Each trial of a pack, and the same alone, beside PEFT from the same factors."""
    settings = [optimizer(lr=lr, weight_decay=0.1) for lr in (1e-3, 3e-3, 1e-3)]
    seeds = range(len(PACK))
    together = attach(ours(family), *PACK, seeds=seeds)
    start = together.outputs(TOKENS, sees=[0] * len(PACK)).view(len(PACK), *TOKENS.shape, VOCABULARY)
    packed = run(together, next_token(20), BATCHES, settings, training(), seeds)
    for trial, adapter in enumerate(PACK):
        alone = attach(ours(family), adapter, seeds=[seeds[trial]])
        theirs = on_peft(
            family,
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            use_rslora=adapter.scaling == "alpha/sqrt_rank",
            target_modules=list(alone.layers),
        )
        for name, layer in alone.layers.items():
            twin = theirs.base_model.model.get_submodule(name)
            twin.lora_A["default"].weight.data.copy_(layer.lora_A[0, : adapter.rank].detach())
            twin.lora_B["default"].weight.data.copy_(layer.lora_B[0, :, : adapter.rank].detach())
            moved = layer.moved(0)
            twin.base_layer.weight.data -= moved.T if family == "gpt2" else moved
        expected = theirs(TOKENS).logits
        assert (start[trial] - expected).abs().max() <= OUTPUTS * expected.abs().max()
        theirs.register_forward_hook(lambda _module, _inputs, output: output.logits)
        trace = their_trace(theirs, next_token(20), BATCHES, 20, lr=settings[trial].lr, weight_decay=0.1)
        own = run(alone, next_token(20), BATCHES, [settings[trial]], training()).losses()
        assert own == pytest.approx(trace, rel=TRACE)
        assert packed.losses(trial) == pytest.approx(trace, rel=TRACE)
        assert abs(own[-1] - own[0]) > 100 * TRACE  # something was trained


@pytest.mark.parametrize("family", FAMILIES)
def test_export_is_loaded_by_peft(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    folded = attach(ours(family), *PACK, seeds=range(len(PACK)))
    run(folded, next_token(3), BATCHES, [optimizer(lr=1e-2)] * len(PACK), training(steps=5))
    together = folded.outputs(TOKENS, sees=[0] * len(PACK)).view(len(PACK), *TOKENS.shape, VOCABULARY)
    untouched = network(family).eval()(TOKENS).logits
    about = {} if family == "bert" else {"task_type": "CAUSAL_LM"}
    for trial, adapter in enumerate(PACK):
        for name, content in export.files(folded, trial, adapter, about).items():
            (tmp_path / name).write_bytes(content)
        theirs = PeftModel.from_pretrained(copy.deepcopy(network(family)), str(tmp_path)).eval()
        assert (theirs(TOKENS).logits - together[trial]).abs().max() <= OUTPUTS * together[trial].abs().max()
        with theirs.disable_adapter():
            assert torch.equal(theirs(TOKENS).logits, untouched)
        assert (together[trial] - untouched).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_export_of_full_fine_tuning_is_the_models_own_weights(family: str) -> None:
    from safetensors.torch import load

    folded = attach(ours(family), FULL)
    run(folded, next_token(3), BATCHES, [optimizer(lr=1e-3)], training(steps=2))
    plain = network(family).eval()
    left = plain.load_state_dict(load(export.files(folded, 0, FULL, {})["model.safetensors"]), strict=False)
    plain.tie_weights()
    assert left.unexpected_keys == []
    expected = folded.outputs(TOKENS, sees=[0])
    assert (plain(TOKENS).logits - expected).abs().max() <= OUTPUTS * expected.abs().max()
    assert (expected - ours(family)(TOKENS)).abs().max() > 1e-3


def test_merged_tied_head_leaves_the_embedding() -> None:
    base = ours("gpt2")
    assert base.lm_head.weight is base.transformer.wte.weight
    folded = attach(base, AdapterOptions.model_validate(lora().model_dump() | {"targets": ["lm_head", "c_attn"]}))
    run(folded, next_token(3), BATCHES, [optimizer(lr=1e-2)], training(steps=5))
    expected = folded.outputs(TOKENS, sees=[0])
    assert (folded.merged(0)(TOKENS) - expected).abs().max() <= OUTPUTS * expected.abs().max()


def test_export_of_a_transposed_layer_in_full_is_loaded_by_peft_and_by_us(tmp_path: Path) -> None:
    """GPT-2's square ``attn.c_proj``, where nothing but the outputs would tell a mistake."""
    from peft import PeftModel

    base, adapter = ours("gpt2"), lora(targets=["c_attn"], save=["attn.c_proj"])
    folded = attach(base, adapter)
    run(folded, next_token(20), BATCHES, [optimizer(lr=1e-2)], training(steps=5))
    for name, content in export.files(folded, 0, adapter, {}).items():
        (tmp_path / name).write_bytes(content)
    trained = folded.outputs(TOKENS, sees=[0])
    theirs = PeftModel.from_pretrained(network("gpt2").eval(), str(tmp_path))
    assert (theirs(TOKENS).logits - trained).abs().max() <= OUTPUTS * trained.abs().max()
    again = attach(base, adapter)
    check_start(tmp_path, adapter, base, list(again.layers), list(again.saved))
    start(again, 0, tmp_path)
    assert (again.outputs(TOKENS, sees=[0]) - trained).abs().max() <= OUTPUTS * trained.abs().max()
    assert (trained - base(TOKENS)).abs().max() > 1e-2


@pytest.mark.parametrize("init", ["eva", "lora_ga"])
@pytest.mark.parametrize("family", FAMILIES)
def test_inits_that_look_at_data_work_on_every_family(family: str, init: str) -> None:
    base = ours(family)
    folded = attach(base, lora(init=init, rank=2), lora(rank=2))
    assert (folded.outputs(TOKENS, sees=[0, 0]).view(2, -1) - base(TOKENS).flatten()).abs().max() < 1e-4
    done = run(folded, next_token(20), BATCHES, [optimizer()] * 2, training(steps=2))
    assert done.losses(0)[0] == pytest.approx(done.losses(1)[0], rel=1e-5)
    assert done.losses(0)[1] != done.losses(1)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_placement_note_is_empty_where_peft_loads_every_tensor(family: str) -> None:
    folded = attach(ours(family), *PACK)
    for trial, adapter in enumerate(PACK):
        assert placement_note(export.files(folded, trial, adapter, {}), network(family)) == ""


def test_placement_note_names_a_tensor_that_peft_renames() -> None:
    """PEFT takes the dense and shared layers of DeepSeek-V3 for experts of the old kind."""
    adapter = lora(rank=4)
    files = export.files(attach(ours("deepseek_v3"), adapter), 0, adapter, {})
    note = placement_note(files, network("deepseek_v3"))
    assert "has no place for 12 of the 32 tensors" in note
    assert "model.layers.0.mlp.down_proj.lora_A.weight" in note
    attention = lora(rank=4, targets="attention")
    files = export.files(attach(ours("deepseek_v3"), attention), 0, attention, {})
    assert placement_note(files, network("deepseek_v3")) == ""
