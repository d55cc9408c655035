"""Our layer, optimizer and loop beside real PEFT with torch.optim, from equal factors on equal batches."""

import copy
import warnings
from typing import Any

import pytest
import torch

from sweep.adapters.fold import Folded
from sweep.tasks.task import Task
from tests.builders import (
    InOrder,
    attach,
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
)  # fmt: skip

OUTPUTS = 1e-6  # relative to the largest output: the same products in float32, summed in another order
TRACE = 1e-5  # relative, over 20 steps of AdamW
INITS = ["kaiming", "gaussian", "normal", "both_random", "init_b", "orthogonal", "pissa", "milora", "olora"]


CASES = [
    (mlp(12, 20, 8), ["layers.0", "layers.1"], squared_error(), InOrder(pairs(12, 8, rows=8, batches=20))),
    (llama(), ["q_proj", "v_proj", "down_proj", "head"], next_token(20), tokens(20)),
]


def peft_twin(base: Any, folded: Folded, rank: int, alpha: float, targets: list[str], use_rslora: bool = False) -> Any:
    """PEFT on a copy of ``base`` with the factors of our first trial, and its base moved as ours is."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, use_rslora=use_rslora)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), config)
    for name, layer in folded.layers.items():
        theirs = model.base_model.model.get_submodule(name)
        theirs.lora_A["default"].weight.data.copy_(layer.lora_A[0, :rank].detach())
        theirs.lora_B["default"].weight.data.copy_(layer.lora_B[0, :, :rank].detach())
        theirs.base_layer.weight.data -= layer.moved(0)
    return model


def their_trace(model: Any, task: Task, domain: InOrder, steps: int, **settings: Any) -> list[float]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update = torch.optim.AdamW(trained, **settings)
    losses = []
    for batch in domain.ordered[:steps]:
        update.zero_grad()
        loss = task.loss(model(batch.inputs), batch.targets).mean()
        loss.backward()
        update.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("case", CASES, ids=["mlp", "llama"])
def test_outputs_and_twenty_steps_of_adamw_are_those_of_peft(case: Any, init: str) -> None:
    base, targets, task, domain = case
    # N(0,1) in both factors multiplies what rounding leaves, layer by layer; a small alpha keeps it comparable
    alpha = 0.3 if init == "both_random" else 9.0
    folded = attach(base, lora(init=init, rank=6, alpha=alpha, targets=targets))
    theirs = peft_twin(base, folded, 6, alpha, targets)
    inputs = domain.ordered[0].inputs
    ours = folded.outputs(inputs, sees=[0])
    assert (ours - theirs(inputs)).abs().max() <= OUTPUTS * max(1.0, ours.abs().max().item())
    assert len(folded.parameters) == sum(p.requires_grad for p in theirs.parameters())
    our_losses = run(folded, task, domain, [optimizer(lr=1e-3, weight_decay=0.1)], training()).losses()
    assert our_losses == pytest.approx(their_trace(theirs, task, domain, 20, lr=1e-3, weight_decay=0.1), rel=TRACE)
    assert abs(our_losses[-1] - our_losses[0]) > 100 * TRACE  # something was trained


def test_rank_stabilised_scaling_is_that_of_peft() -> None:
    base, targets, _, domain = CASES[0]
    folded = attach(base, lora(init="both_random", rank=6, alpha=9.0, scaling="alpha/sqrt_rank"))
    theirs = peft_twin(base, folded, 6, 9.0, targets, use_rslora=True)
    inputs = domain.ordered[0].inputs
    ours = folded.outputs(inputs, sees=[0])
    torch.testing.assert_close(ours, theirs(inputs), atol=OUTPUTS * ours.abs().max().item(), rtol=0)


def test_the_update_of_the_weight_is_that_of_peft() -> None:
    base, targets, _, _ = CASES[0]
    folded = attach(base, lora(init="both_random", rank=6, alpha=9.0))
    theirs = peft_twin(base, folded, 6, 9.0, targets)
    for name, layer in folded.layers.items():
        their_delta = theirs.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(layer.delta(0), their_delta, atol=1e-5, rtol=1e-6)  # entries near 10


def test_a_bias_is_trained_where_peft_trains_it() -> None:
    from peft import LoraConfig, get_peft_model

    base = mlp(12, 20, 8)
    for bias in ("none", "all", "lora_only"):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["layers.0"], bias=bias)
        theirs = get_peft_model(copy.deepcopy(base), config)
        folded = attach(base, lora(targets=["layers.0"], bias=bias))
        how = run(folded, squared_error(), InOrder(pairs(12, 8, 8, 1)), [optimizer()], training(steps=1)).trained
        assert how.trainable == [sum(p.numel() for p in theirs.parameters() if p.requires_grad)]
