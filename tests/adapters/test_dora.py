"""DoRA against its formula with V written out, against finite differences, and against PEFT step for step."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweep.adapters.dora import DoRALinear
from sweep.adapters.fold import Folded
from sweep.adapters.lora import TrialFactors
from sweep.registry import INITS
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
    randn,
    run,
    squared_error,
    tokens,
    training,
)

TRIALS, ROWS, IN, OUT, RANK = 3, 7, 6, 5, 2
SCALING = [0.5, 1.0, 4.0]
TARGETED = [True, False, True]


def layer(dropout: float = 0.0, moved: bool = False, has_bias: bool = True) -> DoRALinear:
    """Three trials with random factors and lengths; the second does not adapt the layer."""
    base = nn.Linear(IN, OUT, bias=has_bias).requires_grad_(False)
    base.weight.data = randn(OUT, IN, seed=1)
    mask = torch.tensor(TARGETED)[:, None, None]
    trials = [
        TrialFactors(
            lora_A[: RANK * is_targeted],
            lora_B[:, : RANK * is_targeted],
            scaling=scaling,
            dropout=dropout,
            dropout_rng=torch.Generator().manual_seed(seed),
            moves_base=moved,
        )
        for seed, (lora_A, lora_B, is_targeted, scaling) in enumerate(
            zip(randn(TRIALS, RANK, IN, seed=5), randn(TRIALS, OUT, RANK, seed=6), TARGETED, SCALING, strict=True), 10
        )
    ]
    adapted = DoRALinear(base, trials, RANK)
    adapted.lora_A.data = randn(TRIALS, RANK, IN, seed=3) * mask
    adapted.lora_B.data = randn(TRIALS, OUT, RANK, seed=4) * mask
    adapted.lora_magnitude_vector.data *= 1 + 0.3 * randn(TRIALS, OUT, seed=7)
    return adapted


def direction(adapted: DoRALinear, trial: int) -> Tensor:
    """V of one trial, written out."""
    v = adapted.base.weight + SCALING[trial] * adapted.lora_B[trial] @ adapted.lora_A[trial]
    if adapted.moved_A is not None:
        v = v - SCALING[trial] * adapted.moved_B[trial] @ adapted.moved_A[trial]
    return v


def reference(adapted: DoRALinear, x: Tensor) -> Tensor:
    """The layer's formula for one trial at a time, differentiable in everything but ‖V‖."""
    parts = []
    for trial, own in enumerate(x.view(TRIALS, -1, IN)):
        v = direction(adapted, trial)
        weight = v * (adapted.lora_magnitude_vector[trial] / v.detach().norm(dim=1))[:, None]
        parts.append(F.linear(own, weight if TARGETED[trial] else adapted.base.weight, adapted.base.bias))
    return torch.cat(parts).view(*x.shape[:-1], OUT)


@pytest.mark.parametrize("shape", [(TRIALS * ROWS, IN), (TRIALS * ROWS, 4, IN)])
@pytest.mark.parametrize("changes", [{}, {"moved": True}, {"has_bias": False}])
def test_dora_outputs_and_gradients_are_those_of_the_formula(changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    adapted, x = layer(**changes), randn(*shape, seed=9).requires_grad_()
    trained = [adapted.lora_A, adapted.lora_B, adapted.lora_magnitude_vector, x]
    pull = randn(*shape[:-1], OUT, seed=11)
    ours, theirs = adapted(x), reference(adapted, x)
    # sums of at most 28 products of normal numbers times 4: values up to some 100 in float32, as in test_lora.py
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    for own, their in zip(
        torch.autograd.grad(ours, trained, pull), torch.autograd.grad(theirs, trained, pull), strict=True
    ):
        torch.testing.assert_close(own, their, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_dora_row_norms_are_those_of_v_written_out(size: float, moved: bool) -> None:
    adapted = layer(moved=moved)
    adapted.lora_B.data *= size
    norms = adapted.row_norms()
    for trial in range(TRIALS):
        expected = direction(adapted, trial).double().norm(dim=1).float()
        torch.testing.assert_close(norms[trial], expected, atol=0, rtol=2e-6)


def test_dora_delta_merges_m_times_v_over_its_norm() -> None:
    adapted = layer(moved=True)
    for trial in (0, 2):
        v = direction(adapted, trial)
        expected = v * (adapted.lora_magnitude_vector[trial] / v.norm(dim=1))[:, None]
        torch.testing.assert_close(adapted.base.weight + adapted.delta(trial), expected, atol=1e-5, rtol=1e-5)
        rows = (adapted.base.weight + adapted.delta(trial)).norm(dim=1)
        torch.testing.assert_close(rows, adapted.lora_magnitude_vector[trial].abs(), atol=0, rtol=1e-5)
    assert not adapted.delta(1).any()


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "normal", "init_b"])
def test_dora_with_one_zero_factor_starts_at_the_base_bit_for_bit(init: str) -> None:
    for model, x in ((mlp(12, 20, 8), randn(6, 12)), (llama(), tokens(1).held_out.inputs)):
        folded = attach(model, lora(init=init, dora=True))
        assert folded.starts_at_base()
        assert torch.equal(folded.outputs(x, sees=[0]), model(x))
        next(iter(folded.layers.values())).lora_magnitude_vector.data *= 1.5  # type: ignore[operator]
        assert not folded.starts_at_base()


@pytest.mark.parametrize("init", sorted({*INITS.names} - {"both_random"}))
def test_dora_starts_where_the_lora_does(init: str) -> None:
    model, x = mlp(12, 20, 8), randn(6, 12)
    plain, dora = (attach(model, lora(init=init, dora=dora)).outputs(x, sees=[0]) for dora in (False, True))
    torch.testing.assert_close(dora, plain, atol=2e-6, rtol=1e-6)


def test_dora_never_writes_the_base() -> None:
    model, x = mlp(12, 20, 8), randn(6, 12)
    before, outputs = bits(model), model(x)
    folded = attach(model, lora(dora=True), lora(init="pissa", dora=True, targets=["layers.1"]))
    run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer(lr=1e-2)] * 2, training(steps=10))
    together = folded.outputs(x, sees=[0, 0]).view(2, 6, 8)
    assert equal(bits(model), before)
    for trial in range(2):
        merged = folded.merged(trial)
        torch.testing.assert_close(merged(x), together[trial], atol=1e-5, rtol=1e-5)
        for name, tensor in folded.unmerged(merged, trial).state_dict().items():
            torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-6)
    folded.enable(False)
    assert torch.equal(folded.outputs(x, sees=[0, 0]).view(2, 6, 8), outputs.expand(2, 6, 8))


def test_dora_trains_one_number_more_for_each_output() -> None:
    folded = attach(mlp(12, 20, 8), lora(rank=4, dora=True), lora(rank=3, dora=True, targets=["layers.1"]))
    how = run(folded, squared_error(), InOrder(pairs(12, 8, 4, 3)), [optimizer()] * 2, training(steps=1)).trained
    assert how.trainable == [4 * (12 + 20) + 20 + 4 * (20 + 8) + 8, 3 * (20 + 8) + 8]
    assert not folded.layers["layers.0"].lora_magnitude_vector[1].any()  # type: ignore[index]


class Mask(nn.Module):
    """A dropout that draws as ours does."""

    def __init__(self, probability: float, rng: torch.Generator):
        super().__init__()
        self.probability, self.rng = probability, rng

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.rand(x.flatten(0, -2).shape, generator=self.rng)
        return x * ((drawn >= self.probability) / (1 - self.probability)).view(x.shape)


CASES = [
    (mlp(12, 20, 8), ["layers.0", "layers.1"], squared_error(), InOrder(pairs(12, 8, rows=8, batches=20))),
    (llama(), ["q_proj", "v_proj", "down_proj", "head"], next_token(20), tokens(20)),
]


def peft_twin(base: Any, folded: Folded, targets: list[str], **settings: Any) -> Any:
    """PEFT's DoRA on a copy of ``base`` with our factors, our moved base and our dropout masks."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.dora import DoraLinearLayer

    config = LoraConfig(r=6, lora_alpha=9.0, target_modules=targets, use_dora=True, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), config)
    for name, ours in folded.layers.items():
        theirs = model.base_model.model.get_submodule(name)
        lora_A, lora_B = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
        lora_A.data.copy_(ours.lora_A[0, :6].detach())
        lora_B.data.copy_(ours.lora_B[0, :, :6].detach())
        theirs.base_layer.weight.data -= ours.moved(0)
        magnitude = theirs.lora_magnitude_vector["default"]
        assert isinstance(magnitude, DoraLinearLayer)
        magnitude.update_layer(base_layer=theirs.base_layer, lora_A=lora_A, lora_B=lora_B, scaling=1.5)
        assert isinstance(ours, DoRALinear)
        torch.testing.assert_close(ours.lora_magnitude_vector[0], magnitude.weight, atol=0, rtol=1e-6)
        if ours.dropout[0]:
            rng = torch.Generator()
            rng.set_state(ours.dropout_rng[0].get_state())
            theirs.lora_dropout["default"] = Mask(ours.dropout[0], rng)
    return model.train()


@pytest.mark.parametrize(
    "settings",
    [{}, {"dropout": 0.3}, {"init": "pissa"}, {"init": "pissa", "dropout": 0.3}, {"init": "orthogonal"}],
    ids=str,
)
@pytest.mark.parametrize("case", CASES, ids=["mlp", "llama"])
def test_dora_outputs_and_twenty_steps_of_adamw_are_those_of_peft(case: Any, settings: dict[str, Any]) -> None:
    base, targets, task, domain = case
    folded = attach(base, lora(rank=6, alpha=9.0, targets=targets, dora=True, bias="all", **settings))
    theirs = peft_twin(base, folded, targets, bias="all", lora_dropout=settings.get("dropout", 0.0))
    update = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
    inputs = domain.ordered[0].inputs
    folded.model.eval()
    theirs.eval()
    ours = folded.outputs(inputs, sees=[0])
    assert (ours - theirs(inputs)).abs().max() <= OUTPUTS * max(1.0, ours.abs().max().item())
    theirs.train()
    assert len(folded.parameters) == sum(p.requires_grad for p in theirs.parameters())
    done = run(folded, task, domain, [optimizer(lr=1e-3, weight_decay=0.1)], training())
    losses = []
    for batch in domain.ordered[:20]:
        update.zero_grad()
        loss = task.loss(theirs(batch.inputs), batch.targets).mean()
        loss.backward()
        update.step()
        losses.append(loss.item())
    assert done.losses() == pytest.approx(losses, rel=TRACE)
    assert done.trained.trainable == [sum(p.numel() for p in theirs.parameters() if p.requires_grad)]
    trained = {name: layer.lora_magnitude_vector[0] for name, layer in folded.layers.items()}
    moved = [
        (m - theirs.base_model.model.get_submodule(name).lora_magnitude_vector["default"].weight).abs().max()
        for name, m in trained.items()
    ]
    assert max(moved) < 1e-4  # lengths near 4 after twenty steps of 1e-3
