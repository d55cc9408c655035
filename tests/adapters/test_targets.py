"""Which layers a trial adapts."""

import re

import pytest

from sweep.adapters.fold import linear_layers
from sweep.adapters.rank import rank_of, scale_of, widest
from sweep.adapters.targets import select, select_saved
from sweep.errors import ConfigError
from tests.support.builders import llama, lora, mlp

LLAMA = list(linear_layers(llama()))
PRESETS = llama().presets
IN_A_BLOCK = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def last_parts(names: list[str]) -> list[str]:
    return [name.rpartition(".")[2] for name in names]


@pytest.mark.parametrize(
    ("preset", "in_each_block"),
    [
        ("all_linear", IN_A_BLOCK),
        ("attention", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        ("qv", ["q_proj", "v_proj"]),
    ],
)
def test_select_preset_takes_these_layers_of_both_blocks_and_never_the_head(
    preset: str, in_each_block: list[str]
) -> None:
    assert last_parts(select(lora(targets=preset), LLAMA, PRESETS)) == in_each_block * 2


def test_select_all_linear_of_a_perceptron_includes_the_last_layer() -> None:
    model = mlp(6, 5, 4, 3)
    assert select(lora(), list(linear_layers(model)), model.presets) == ["layers.0", "layers.1", "layers.2"]


def test_select_list_holds_last_parts_or_full_names() -> None:
    chosen = select(lora(targets=["head", "blocks.1.mlp.up_proj", "v_proj"]), LLAMA, PRESETS)
    assert chosen == ["blocks.0.attention.v_proj", "blocks.1.attention.v_proj", "blocks.1.mlp.up_proj", "head"]


def test_select_name_must_be_a_whole_part_of_the_dotted_name() -> None:
    with pytest.raises(ConfigError, match="'proj' matches no layer"):
        select(lora(targets=["proj"]), LLAMA, PRESETS)


def test_select_expression_matches_the_full_name() -> None:
    assert select(lora(targets=r".*\.0\..*[qk]_proj"), LLAMA, PRESETS) == [
        "blocks.0.attention.q_proj",
        "blocks.0.attention.k_proj",
    ]
    with pytest.raises(ConfigError):
        select(lora(targets=r"q_proj"), LLAMA, PRESETS)


def test_select_layers_keeps_only_those_indices() -> None:
    assert select(lora(targets="qv", layers=[1]), LLAMA, PRESETS) == [
        "blocks.1.attention.q_proj",
        "blocks.1.attention.v_proj",
    ]


def test_select_exclude_leaves_out_by_name_or_by_expression() -> None:
    assert select(lora(targets="qv", exclude=["blocks.0.attention.q_proj"]), LLAMA, PRESETS) == [
        "blocks.0.attention.v_proj",
        "blocks.1.attention.q_proj",
        "blocks.1.attention.v_proj",
    ]
    assert (
        last_parts(select(lora(targets="mlp", exclude=["up_proj"]), LLAMA, PRESETS)) == ["gate_proj", "down_proj"] * 2
    )
    assert select(lora(targets="qv", exclude=r"blocks\.1\..*"), LLAMA, PRESETS) == [
        "blocks.0.attention.q_proj",
        "blocks.0.attention.v_proj",
    ]


def test_select_leaves_out_what_is_trained_in_full() -> None:
    assert select(lora(targets=["head", "q_proj"], save=["head"]), LLAMA, PRESETS) == select(
        lora(targets=["q_proj"]), LLAMA, PRESETS
    )
    assert select(lora(targets="qv", save=["blocks.0"]), LLAMA, PRESETS) == [
        "blocks.1.attention.q_proj",
        "blocks.1.attention.v_proj",
    ]


def test_select_saved_takes_the_outermost_of_nested_modules() -> None:
    modules = [name for name, module in llama().named_modules() if list(module.parameters())]
    assert select_saved(lora(), modules) == []
    assert select_saved(lora(save=["norm", "head"]), modules) == ["norm", "head"]
    assert select_saved(lora(save=["q_proj", "0.attention"]), modules) == [
        "blocks.0.attention",
        "blocks.1.attention.q_proj",
    ]
    with pytest.raises(
        ConfigError, match=r"adapter\.save = \['hea'\]: 'hea' matches no layer; this model's modules are"
    ):
        select_saved(lora(save=["hea"]), modules)


def test_rank_of_and_alpha_of_take_the_first_expression_that_matches() -> None:
    pattern = {"0.attention.q_proj": 2, "q_proj": 3, r"mlp\..*": 5}
    adapter = lora(rank=4, alpha=8.0, rank_pattern=pattern, alpha_pattern={"q_proj": 1.0})
    ranks = [
        rank_of(adapter, f"blocks.{layer}")
        for layer in ("0.attention.q_proj", "1.attention.q_proj", "1.mlp.up_proj", "1.attention.xq_proj")
    ]
    assert ranks == [2, 3, 5, 4]
    assert widest(adapter) == 5
    assert scale_of(adapter, "blocks.0.attention.q_proj") == 1 / 2
    assert scale_of(adapter, "blocks.1.mlp.up_proj") == 8 / 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": "atention"},
            "adapter.targets = 'atention': matches no layer; this model's layers are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, head; its presets are all_linear, attention, mlp, qv",
        ),
        (
            {"targets": ["q_proj", "w_proj"]},
            "adapter.targets = ['q_proj', 'w_proj']: 'w_proj' matches no layer; this model's layers are q_proj, k_proj",
        ),
        ({"targets": []}, "adapter.targets = []: an empty list; this model's layers are"),
        ({"targets": "(q_proj"}, "adapter.targets = '(q_proj': not a valid regular expression"),
        (
            {"targets": "qv", "exclude": ["up_proj"]},
            "adapter.exclude = ['up_proj']: 'up_proj' matches no layer; the targeted layers are q_proj, v_proj",
        ),
        (
            {"targets": "qv", "exclude": "up"},
            "adapter.exclude = 'up': matches no layer; the targeted layers are q_proj, v_proj",
        ),
        ({"targets": "qv", "save": ["attention"]}, "adapter.save = ['attention']: leaves no layer to adapt"),
        ({"targets": "qv", "exclude": ".*"}, "adapter.exclude = '.*': leaves no layer to adapt"),
        (
            {"targets": "qv", "rank_pattern": {"q": 2}},
            "adapter.rank_pattern = {'q': 2}: 'q' matches no layer; the targeted layers are q_proj, v_proj",
        ),
        ({"targets": "qv", "layers": [0, 2]}, "adapter.layers = [0, 2]: no targeted layer has index 2; there are 0, 1"),
    ],
)
def test_select_fault_names_the_value_and_what_is_allowed(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        select(lora(**changes), LLAMA, PRESETS)


def test_select_refuses_a_preset_of_another_model() -> None:
    model = mlp(6, 5)
    with pytest.raises(ConfigError, match=r"adapter\.targets = 'attention': .*its presets are all_linear, mlp"):
        select(lora(targets="attention"), list(linear_layers(model)), model.presets)
