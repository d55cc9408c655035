"""Accounting from shapes, against Hugging Face's models on the meta device, PyTorch's FLOP counter and published counts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
)

from sweep.adapters.fold import linear_layers
from sweep.errors import ConfigError
from sweep.models.mlp import MLP
from sweep.params.__main__ import main, report
from sweep.params.account import full, lora
from sweep.params.shapes import NAMED, shape_of
from tests.support.builders import NOWHERE, randn
from tests.support.commands import config

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's own


@pytest.mark.parametrize(
    ("model", "targets", "rank", "trainable", "total"),
    [
        ("facebook/opt-350m", "q_proj,v_proj", 8, 786_432, 331_982_848),
        ("facebook/opt-350m", "q_proj,v_proj", 16, 1_572_864, 332_769_280),  # printed by a tutorial under r=8
        ("meta-llama/Llama-2-7b-hf", "q_proj,v_proj", 8, 4_194_304, 6_742_609_920),
        ("Llama-2-7B", "all_linear", 8, 19_988_480, 6_758_404_096),
        ("Llama-2-7B", r"model\.layers\.0\.self_attn\.q_proj", 8, 65_536, 6_738_415_616 + 65_536),
        ("mnist", "all_linear", 1, 6_794, 2_813_804),
    ],
)
def test_params_of_published_models_are_their_counts(
    model: str, targets: str, rank: int, trainable: int, total: int
) -> None:
    account = lora(shape_of(model), targets, rank)
    assert (account.trainable_params, account.total_params) == (trainable, total)
    assert account.optimizer_bytes == 12 * trainable
    assert account.saved_bytes == 4 * trainable


@pytest.mark.parametrize(("rank", "millions"), [(1, 4.7), (8, 37.7)])
def test_params_of_gpt3_are_those_of_table_4_of_the_lora_paper(rank: int, millions: float) -> None:
    assert lora(shape_of("GPT-3"), "qv", rank).trainable_params == pytest.approx(millions * 1e6, abs=0.05e6)
    assert full(shape_of("GPT-3")).total_params == pytest.approx(175e9, rel=0.003)  # "175,255.8 M"


LLAMA_3 = {"vocab_size": 128_256, "num_key_value_heads": 8}
CONFIGS: dict[str, PretrainedConfig] = {
    "Llama-2-7B": LlamaConfig(),
    "Llama-3.1-8B": LlamaConfig(**LLAMA_3, intermediate_size=14_336),
    "Llama-3.2-1B": LlamaConfig(
        **LLAMA_3, hidden_size=2048, num_hidden_layers=16, intermediate_size=8192, tie_word_embeddings=True
    ),
    "Mistral-7B": MistralConfig(),
    "opt-125m": OPTConfig(),
    "opt-350m": OPTConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        ffn_dim=4096,
        num_attention_heads=16,
        word_embed_proj_dim=512,
        do_layer_norm_before=False,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_params_of_a_named_model_are_what_its_config_builds(name: str, tmp_path: Path) -> None:
    model = CONFIGS[name]
    model.architectures = None
    model.save_pretrained(tmp_path)
    named, built = NAMED[name].shape(name), shape_of(str(tmp_path))
    assert named.stages == built.stages
    assert (named.params, named.head) == (built.params, built.head)


@pytest.mark.parametrize("task", ["toy_regression", "mnist", "transformer", "transformer_tiny"])
def test_params_of_a_task_are_those_of_its_model(task: str) -> None:
    built, rng = config(f"task={task}").task.build(NOWHERE), torch.Generator()
    with torch.device("meta"):
        model = built.new_model(rng)
    shape = shape_of(task)
    assert list(shape.linears.values()) == [
        (layer.in_features, layer.out_features) for layer in linear_layers(model).values()
    ]
    assert shape.params == sum(parameter.numel() for parameter in model.parameters())
    assert {"all_linear"} <= set(shape.presets) <= set(model.presets)


TINY: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
    ),
    "opt": OPTConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=64,
        word_embed_proj_dim=16,
        do_layer_norm_before=False,
        dropout=0.0,
    ),
    "gpt2": GPT2Config(vocab_size=40, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
}


def counted(model: nn.Module, inputs: Any, tokens: int) -> float:
    """FLOPs per token of one forward and backward pass: the products of two matrices, which attention's are not."""
    with FlopCounterMode(display=False) as counter:
        outputs = model(inputs)
        getattr(outputs, "logits", outputs).sum().backward()
    operators = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    return sum(operators.get(name, 0) for name in ("aten.mm", "aten.addmm")) / tokens


@pytest.mark.parametrize("targets", ["qv", "attention", "mlp", "all_linear", r".*layers\.[12]\..*_proj", "full"])
@pytest.mark.parametrize("family", TINY)
def test_flops_are_those_that_pytorch_counts(family: str, targets: str, tmp_path: Path) -> None:
    TINY[family].save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    if family == "gpt2":  # names of its own
        targets = {"qv": "c_attn", "mlp": r".*mlp\.c_.*", "attention": "c_fc"}.get(targets, targets)
        if "layers" in targets:
            pytest.skip("its layers have other names")
    model = AutoModelForCausalLM.from_config(TINY[family], attn_implementation="eager")
    tokens = torch.arange(24).view(2, 12)
    if targets == "full":
        assert counted(model, tokens, 24) == full(shape).flops_per_token
        return
    account = lora(shape, targets, 5)
    chosen: Any = "all-linear" if targets == "all_linear" else targets
    if targets in shape.presets and targets != "all_linear":
        chosen = list(shape.presets[targets])
    elif "." not in targets and targets != "all_linear":
        chosen = [targets]
    peft = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=5, target_modules=chosen, fan_in_fan_out=family == "gpt2")
    )
    assert counted(peft, tokens, 24) == account.flops_per_token
    assert peft.get_nb_trainable_parameters() == (account.trainable_params, account.total_params)


@pytest.mark.parametrize("targets", [["layers.0", "layers.1", "layers.2"], ["layers.1"], ["layers.2"]])
def test_flops_of_a_perceptron(targets: list[str]) -> None:
    shape = NAMED["mnist"].shape("mnist")
    model = get_peft_model(MLP([784, 1000, 2000, 10]), LoraConfig(r=3, target_modules=targets))  # type: ignore[arg-type]
    assert counted(model, randn(2, 784), 2) == lora(shape, ",".join(targets), 3).flops_per_token
    assert counted(MLP([784, 1000, 2000, 10]), randn(2, 784), 2) == full(shape).flops_per_token


def test_params_command_prints_every_combination_below_full_fine_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--model", "opt-350m,mnist", "--targets", "all_linear", "all_linear", "--rank", "1,8"]
    assert main(line) == 0
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines() if "|" in row
    ]
    assert [row[:3] for row in rows[2:]] == [
        [model, *how]
        for model in ("opt-350m", "mnist")
        for how in (["full", "–"], *[["all_linear", rank] for rank in ("1", "8")] * 2)
    ]
    by_name = dict(zip(rows[0], rows[8], strict=True))
    assert (by_name["trainable"], by_name["total"], by_name["ratio"]) == ("6,794", "2,813,804", "0.2415%")
    assert main([*line, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers[6]["trainable_ratio"] == 6_794 / 2_813_804


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--model", "opt-351m"], "opt-350m"),
        (["--model", "opt-350m", "--targets", "gate_proj"], "q_proj"),
        (["--model", "opt-350m", "--targets", "q_proj,gate_proj"], "'gate_proj' matches no layer"),
        (["--model", "."], "config.json is missing"),
    ],
)
def test_params_command_says_a_mistake_in_one_line(
    line: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"sweep.params: {line[-2]} ")
    assert says in said.err
    assert said.err.count("\n") == 1


def test_params_refuse_a_config_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(ConfigError, match=r"--model .*no such thing"):
        shape_of(str(tmp_path))


def test_params_refuse_a_mixture_of_experts(tmp_path: Path) -> None:
    MixtralConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a mixtral cannot be computed from its shapes alone"):
        shape_of(str(tmp_path))


def test_params_of_a_config_need_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"lora-sweep\[hf\]"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize("ranks", ["0", ",", "4,-1"])
def test_params_refuse_ranks_below_one(ranks: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "Llama-2-7B", "--rank", ranks])
    assert "ranks are whole numbers from 1" in capsys.readouterr().err


def test_params_of_large_models_are_in_tera() -> None:
    assert " 2.5 T |" in report([replace(full(shape_of("Llama-2-7B")), flops_per_token=2_500_000_000_000)])
