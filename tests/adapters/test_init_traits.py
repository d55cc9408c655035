"""What every registered initialisation says of itself, against what it does, against PEFT, and against the texts."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from sweep.adapters.inits import BaseWeight, Init
from sweep.adapters.inits.check import check_ranks
from sweep.adapters.peft.import_ import PEFT_INITS
from sweep.errors import ConfigError
from sweep.registry import INITS
from tests.support.builders import (
    InOrder,
    attach,
    calibrated,
    lora,
    mlp,
    optimizer,
    pairs,
    run,
    squared_error,
    training,
)

ROOT = Path(__file__).parents[2]
EVERY_INIT = pytest.mark.parametrize("name", INITS.names)


def init_of(name: str) -> Init:
    init: Init = INITS.load(name)
    return init


def draw(name: str, base: BaseWeight, rank: int) -> tuple[Tensor, Tensor]:
    return init_of(name).draw(base, rank, 2.0, Generator().manual_seed(0))


@EVERY_INIT
def test_init_moves_base_is_whether_the_start_would_be_elsewhere(name: str) -> None:
    model = mlp(12, 20, 8)
    lora_A, lora_B = draw(name, calibrated(model)["layers.0"], rank=4)
    folded = attach(model, lora(init=name, rank=4, alpha=8.0))
    layer = folded.layers["layers.0"]
    is_elsewhere = bool((lora_B @ lora_A).abs().max() > 1e-6)  # entries are near 0.1 or larger, or cancel
    assert init_of(name).moves_base == is_elsewhere == (layer.moved_factors(0) is not None) or name == "both_random"
    # s·BA and s·B₀A₀ are the same product of two entries near 1: nothing is left, to the last bits
    starts_at_base = bool(layer.delta(0).abs().max() < 1e-6)
    assert starts_at_base != (name == "both_random")


@EVERY_INIT
def test_init_trains_b_is_whether_b_moves(name: str) -> None:
    folded = attach(mlp(12, 20, 8), lora(init=name))
    before = {layer_name: layer.output_factors().detach().clone() for layer_name, layer in folded.layers.items()}
    run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer(weight_decay=0.1)], training(steps=3))
    for layer_name, layer in folded.layers.items():
        assert torch.equal(layer.output_factors(), before[layer_name]) != init_of(name).trains_B
        assert ("lora_B" in layer.trained_numbers(0)) == init_of(name).trains_B


@pytest.mark.parametrize("theirs", PEFT_INITS)
def test_init_moves_base_and_trains_b_are_as_in_peft(theirs: Any) -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(12, 8)).requires_grad_(False)
    config = peft.LoraConfig(r=4, init_lora_weights=theirs, target_modules=["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = peft.get_peft_model(copy.deepcopy(base), config).base_model.model[0]
    init = init_of(PEFT_INITS[theirs])
    assert torch.equal(layer.base_layer.weight, base[0].weight) != init.moves_base
    assert layer.lora_B["default"].weight.requires_grad == init.trains_B


@EVERY_INIT
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_init_vectors_and_even_rank_refuse_the_ranks_that_cannot_be_drawn_and_no_other(
    name: str, shape: tuple[int, int]
) -> None:
    base = calibrated(mlp(shape[1], shape[0]))["layers.0"]
    for rank in range(1, 9):
        try:
            lora_A, lora_B = draw(name, base, rank)
            is_drawn = lora_A.shape == (rank, shape[1]) and lora_B.shape == (shape[0], rank)
        except RuntimeError:
            is_drawn = False
        try:
            check_ranks(lora(init=name, rank=rank), {"large": (20, 20), "small": shape})
            is_accepted = True
        except ConfigError:
            is_accepted = False
        assert is_accepted == is_drawn, rank


@EVERY_INIT
def test_init_looks_at_data_is_whether_it_needs_them(name: str) -> None:
    weight = mlp(12, 20).linears[0].weight
    if init_of(name).looks_at_data:
        with pytest.raises(AssertionError, match="looks at data"):
            draw(name, BaseWeight(weight), rank=4)
    else:
        draw(name, BaseWeight(weight), rank=4)


def test_init_names_in_the_readme_are_of_the_registry() -> None:
    [row] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `adapter.init` |")]
    assert set(re.findall(r"`(\w+)`", row)) <= set(INITS.names)


def test_init_table_of_the_documentation_says_what_each_says_of_itself() -> None:
    page = (ROOT / "docs/lora.md").read_text()
    section = page.split("## Initialisations")[1].split("\n## ")[0]
    table = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert tuple(name for name, *_ in table) == INITS.names
    ranks = {None: "any", "min": "≤ min(in, out)", "in": "≤ in"}
    for name, _, b, base, rank, data, *_ in table:
        init = init_of(name)
        assert ("frozen" in b) != init.trains_B
        assert (base == "s·BA taken out") == init.moves_base
        assert rank == ("even" if init.even_rank else ranks[init.vectors])
        assert (data != "no") == init.looks_at_data
