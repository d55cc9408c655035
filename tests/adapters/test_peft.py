"""Our layer, optimizer and loop beside real PEFT with torch.optim, from equal factors on equal batches."""

import copy
import warnings
from typing import Any

import pytest
import torch

from sweep.adapters.fold import Folded, linear_layers
from sweep.adapters.targets import select
from sweep.errors import ConfigError
from sweep.registry import INITS
from sweep.tasks.task import Task
from tests.support.builders import (
    OUTPUTS,
    TRACE,
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
    run,
    squared_error,
    tokens,
    training,
)

CASES = [
    (mlp(12, 20, 8), ["layers.0", "layers.1"], squared_error(), InOrder(pairs(12, 8, rows=8, batches=20))),
    (llama(), ["q_proj", "v_proj", "down_proj", "head"], next_token(20), tokens(20)),
]


def peft_twin(base: Any, folded: Folded, rank: int, alpha: float, targets: list[str], **settings: Any) -> Any:
    """PEFT on a copy of ``base`` with the factors of our first trial, and its base moved as ours is."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), config)
    for name, layer in folded.layers.items():
        theirs = model.base_model.model.get_submodule(name)
        rank = theirs.r["default"]
        theirs.lora_A["default"].weight.data.copy_(layer.lora_A[0, :rank].detach())
        theirs.lora_B["default"].weight.data.copy_(layer.output_factors()[0, :, :rank].detach())
        theirs.base_layer.weight.data -= layer.moved(0)
    return model


def their_trace(
    model: Any, task: Task, domain: InOrder, steps: int, update: Any = None, **settings: Any
) -> list[float]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update = update or torch.optim.AdamW(trained, **settings)
    losses = []
    for batch in domain.ordered[:steps]:
        update.zero_grad()
        loss = task.loss(model(batch.inputs), batch.targets).mean()
        loss.backward()
        update.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("init", INITS.names)
@pytest.mark.parametrize("case", CASES, ids=["mlp", "llama"])
def test_lora_outputs_and_twenty_steps_of_adamw_are_those_of_peft(case: Any, init: str) -> None:
    base, targets, task, domain = case
    # N(0,1) in both factors multiplies what rounding leaves, layer by layer; a small alpha keeps it comparable
    alpha = 0.3 if init == "both_random" else 9.0
    folded = attach(base, lora(init=init, rank=6, alpha=alpha, targets=targets))
    theirs = peft_twin(base, folded, 6, alpha, targets, init_lora_weights=True if INITS.load(init).trains_B else "mica")
    inputs = domain.ordered[0].inputs
    ours = folded.outputs(inputs, sees=[0])
    assert (ours - theirs(inputs)).abs().max() <= OUTPUTS * max(1.0, ours.abs().max().item())
    assert len(folded.parameters) == sum(p.requires_grad for p in theirs.parameters())
    our_losses = run(folded, task, domain, [optimizer(lr=1e-3, weight_decay=0.1)], training()).losses()
    assert our_losses == pytest.approx(their_trace(theirs, task, domain, 20, lr=1e-3, weight_decay=0.1), rel=TRACE)
    assert abs(our_losses[-1] - our_losses[0]) > 100 * TRACE  # something was trained


def test_rslora_is_that_of_peft() -> None:
    base, targets, _, domain = CASES[0]
    folded = attach(base, lora(init="both_random", rank=6, alpha=9.0, scaling="alpha/sqrt_rank"))
    theirs = peft_twin(base, folded, 6, 9.0, targets, use_rslora=True)
    inputs = domain.ordered[0].inputs
    ours = folded.outputs(inputs, sees=[0])
    torch.testing.assert_close(ours, theirs(inputs), atol=OUTPUTS * ours.abs().max().item(), rtol=0)


SAVED = [
    (0, {"targets": ["layers.1"], "save": ["layers.0"]}),  # before the first adapted layer
    (0, {"targets": ["layers.0"], "save": ["layers.1"], "bias": "all"}),
    (1, {"targets": ["q_proj", "head"], "save": ["head"]}),
    (1, {"targets": ["q_proj", "down_proj"], "save": ["embedding"]}),
    (1, {"targets": ["v_proj"], "save": ["input_norm", "1.mlp"], "dora": True}),
]


@pytest.mark.parametrize(("case", "settings"), SAVED)
def test_save_trains_the_modules_that_peft_trains(case: int, settings: dict[str, Any]) -> None:
    base, _, task, domain = CASES[case]
    before = bits(base)
    folded = attach(base, lora(rank=6, alpha=9.0, **settings))
    theirs = peft_twin(
        base,
        folded,
        6,
        9.0,
        settings["targets"],
        modules_to_save=settings["save"],
        bias=settings.get("bias", "none"),
        use_dora=settings.get("dora", False),
    )
    inputs = domain.ordered[0].inputs
    assert folded.starts_at_base()
    assert torch.equal(folded.outputs(inputs, sees=[0]), base(inputs))
    done = run(folded, task, domain, [optimizer(lr=1e-3, weight_decay=0.1)], training())
    assert done.losses() == pytest.approx(their_trace(theirs, task, domain, 20, lr=1e-3, weight_decay=0.1), rel=TRACE)
    assert done.trained.trainable == [sum(p.numel() for p in theirs.parameters() if p.requires_grad)]
    assert folded.added_params(0) == sum(p.numel() for name, p in theirs.named_parameters() if "lora_" in name)

    assert not folded.starts_at_base()
    trained, untouched = folded.outputs(inputs, sees=[0]), base(inputs)
    torch.testing.assert_close(trained, theirs(inputs), atol=1e-4, rtol=1e-4)
    assert (trained - untouched).abs().max() > 1e-3
    merged = folded.merged(0)
    torch.testing.assert_close(merged(inputs), trained, atol=1e-5, rtol=1e-5)
    for name, tensor in folded.unmerged(merged, 0).state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-6)
    folded.enable(False)
    assert torch.equal(folded.outputs(inputs, sees=[0]), untouched)
    folded.enable(True)
    assert torch.equal(folded.outputs(inputs, sees=[0]), trained)
    assert equal(bits(base), before)


LLAMA = ["q_proj", "v_proj", "down_proj", "head"]
CHOICES = [
    ({"exclude": ["v_proj"]}, {"exclude_modules": ["v_proj"]}),
    ({"exclude": r".*\.1\..*"}, {"exclude_modules": r".*\.1\..*"}),
    (
        {"rank_pattern": {"0.attention.q_proj": 2, "[qv]_proj": 3}},
        {"rank_pattern": {"0.attention.q_proj": 2, "[qv]_proj": 3}},
    ),
    (
        {"alpha_pattern": {"head": 30.0, r"blocks\.1\..*": 1.0}},
        {"alpha_pattern": {"head": 30.0, r"blocks\.1\..*": 1.0}},
    ),
    (
        {"rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 0.2}, "scaling": "alpha/sqrt_rank"},
        {"rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 0.2}, "use_rslora": True},
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), CHOICES)
def test_targets_patterns_and_exclusions_are_those_of_peft(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    base, _, task, domain = CASES[1]
    folded = attach(base, lora(init="both_random", rank=6, alpha=0.3, targets=LLAMA, **ours))
    twin = peft_twin(base, folded, 6, 0.3, LLAMA, **theirs)
    assert sorted(folded.layers) == sorted(twin.base_model.targeted_module_names)
    inputs = domain.ordered[0].inputs
    outputs = folded.outputs(inputs, sees=[0])
    assert (outputs - twin(inputs)).abs().max() <= OUTPUTS * max(1.0, outputs.abs().max().item())
    counted = run(folded, task, domain, [optimizer()], training(steps=1)).trained.trainable
    assert counted == [sum(p.numel() for p in twin.parameters() if p.requires_grad)]


def test_targets_layer_indices_are_those_of_peft_or_stricter() -> None:
    """PEFT looks for ``something.blocks.1.``: it takes nothing of a list at the root, and whatever is named in full."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    names = list(linear_layers(llama()))
    ours = select(lora(targets=["q_proj", "head"], layers=[1]), names, {})
    assert ours == ["blocks.1.attention.q_proj"]
    config = LoraConfig(target_modules=["q_proj", "head"], layers_to_transform=[1])
    assert [name for name in names if check_target_module_exists(config, f"model.{name}")] == ours
    assert [name for name in names if check_target_module_exists(config, name)] == ["head"]
    with pytest.raises(ConfigError, match=r"adapter\.layers"):
        select(lora(targets=["blocks.0.attention.q_proj", "head"], layers=[1]), names, {})


@pytest.mark.parametrize("case", CASES, ids=["mlp", "llama"])
def test_lora_plus_is_that_of_peft(case: Any) -> None:
    from peft.optimizers import create_loraplus_optimizer

    base, targets, task, domain = case
    folded = attach(base, lora(rank=6, alpha=9.0, targets=targets, bias="all"))
    theirs = peft_twin(base, folded, 6, 9.0, targets, bias="all")
    update = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0, loraplus_weight_decay=0.0
    )
    setting = optimizer(lr=1e-3, lr_ratio=8.0)
    our_losses = run(folded, task, domain, [setting], training()).losses()
    assert our_losses == pytest.approx(their_trace(theirs, task, domain, 20, update), rel=TRACE)
    plain = run(
        attach(base, lora(rank=6, alpha=9.0, targets=targets, bias="all")),
        task,
        domain,
        [optimizer(lr=1e-3)],
        training(),
    )
    assert abs(our_losses[-1] - plain.losses()[-1]) > 100 * TRACE


def test_delta_is_that_of_peft() -> None:
    base, targets, _, _ = CASES[0]
    folded = attach(base, lora(init="both_random", rank=6, alpha=9.0))
    theirs = peft_twin(base, folded, 6, 9.0, targets)
    for name, layer in folded.layers.items():
        their_delta = theirs.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(layer.delta(0), their_delta, atol=1e-5, rtol=1e-6)  # entries near 10


def test_bias_is_trained_where_peft_trains_it() -> None:
    from peft import LoraConfig, get_peft_model

    base = mlp(12, 20, 8)
    for bias in ("none", "all", "lora_only"):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["layers.0"], bias=bias)
        theirs = get_peft_model(copy.deepcopy(base), config)
        folded = attach(base, lora(targets=["layers.0"], bias=bias))
        how = run(folded, squared_error(), InOrder(pairs(12, 8, 8, 1)), [optimizer()], training(steps=1)).trained
        assert how.trainable == [sum(p.numel() for p in theirs.parameters() if p.requires_grad)]
