"""The layer against its formula, written out for one trial at a time, and its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweep.adapters.lora import LoRALinear, TrialFactors
from tests.support.builders import randn

TRIALS, ROWS, IN, OUT, RANK = 3, 7, 6, 5, 2
SCALING = [0.5, 1.0, 4.0]


def layer(dropout: list[float] | None = None, moved: bool = False, bias: list[bool] | None = None) -> LoRALinear:
    base = nn.Linear(IN, OUT).requires_grad_(False)
    base.weight.data, base.bias.data = randn(OUT, IN, seed=1), randn(OUT, seed=2)
    trials = [
        TrialFactors(
            *factors,
            scaling=SCALING[trial],
            dropout=dropout[trial] if dropout else 0.0,
            dropout_rng=torch.Generator().manual_seed(10 + trial),
            moves_base=moved,
            trains_bias=bias is not None and bias[trial],
        )
        for trial, factors in enumerate(
            zip(randn(TRIALS, RANK, IN, seed=5), randn(TRIALS, OUT, RANK, seed=6), strict=True)
        )
    ]
    adapted = LoRALinear(base, trials, RANK)
    adapted.lora_A.data, adapted.lora_B.data = randn(TRIALS, RANK, IN, seed=3), randn(TRIALS, OUT, RANK, seed=4)
    if adapted.bias is not None:
        adapted.bias.data = randn(TRIALS, OUT, seed=8)
    return adapted


def reference(adapted: LoRALinear, x: Tensor) -> Tensor:
    """The layer's formula in plain torch, differentiable in everything."""
    parts = []
    for trial, own in enumerate(x.view(TRIALS, -1, IN)):
        trains = adapted.bias is not None and adapted.trains_bias[trial]
        y = F.linear(own, adapted.base.weight, adapted.bias[trial] if trains else adapted.base.bias)
        y = y + SCALING[trial] * F.linear(F.linear(own, adapted.lora_A[trial]), adapted.lora_B[trial])
        if adapted.moved_A is not None:
            y = y - SCALING[trial] * F.linear(F.linear(own, adapted.moved_A[trial]), adapted.moved_B[trial])
        parts.append(y)
    return torch.cat(parts).view(*x.shape[:-1], OUT)


@pytest.mark.parametrize("shape", [(TRIALS * ROWS, IN), (TRIALS * ROWS, 4, IN)])
@pytest.mark.parametrize("changes", [{}, {"moved": True}, {"bias": [True, False, True]}])
def test_lora_outputs_and_gradients_are_those_of_the_formula(
    changes: dict[str, object], shape: tuple[int, ...]
) -> None:
    adapted, x = layer(**changes), randn(*shape, seed=9).requires_grad_()
    trained = [adapted.lora_A, adapted.lora_B, *([] if adapted.bias is None else [adapted.bias]), x]
    pull = randn(*shape[:-1], OUT, seed=11)
    ours, theirs = adapted(x), reference(adapted, x)
    # sums of at most 28 products of normal numbers times 4: values up to some 100 in float32
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    for own, their in zip(
        torch.autograd.grad(ours, trained, pull), torch.autograd.grad(theirs, trained, pull), strict=True
    ):
        torch.testing.assert_close(own, their, atol=1e-4, rtol=1e-5)


def test_lora_derivatives_agree_with_finite_differences() -> None:
    adapted = layer(moved=True, bias=[True, False, True]).double()
    x = randn(TRIALS * 2, IN, seed=9).double().requires_grad_()

    def outputs(x: Tensor, lora_A: Tensor, lora_B: Tensor, bias: Tensor) -> Tensor:
        values = {"lora_A": lora_A, "lora_B": lora_B, "bias": bias}
        return torch.func.functional_call(adapted, values, (x,))

    assert torch.autograd.gradcheck(outputs, (x, adapted.lora_A, adapted.lora_B, adapted.bias))


def test_lora_refuses_a_second_derivative() -> None:
    x = randn(TRIALS, IN).requires_grad_()
    [gradient] = torch.autograd.grad(layer()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_lora_off_is_its_base_bit_for_bit() -> None:
    adapted, x = layer(moved=True, bias=[True] * 3), randn(TRIALS * ROWS, IN)
    on = adapted(x)
    adapted.enabled = False
    assert torch.equal(adapted(x), adapted.base(x))
    adapted.enabled = True
    assert torch.equal(adapted(x), on)
    assert not torch.equal(on, adapted.base(x))


def test_lora_dropout_acts_on_the_lora_path_only_and_only_in_training() -> None:
    adapted, x = layer(dropout=[0.5, 0.0, 0.5]), randn(TRIALS * ROWS, IN)
    plain = layer()
    adapted.eval()
    assert torch.equal(adapted(x), plain(x))
    adapted.train()
    dropped, undropped = adapted(x).view(TRIALS, ROWS, OUT), plain(x).view(TRIALS, ROWS, OUT)
    assert torch.equal(dropped[1], undropped[1])
    assert not torch.equal(dropped[0], undropped[0])
    adapted.lora_B.data.zero_()  # without the LoRA path dropout has nothing to act on
    assert torch.equal(adapted(x), adapted.base(x))


def test_lora_dropout_zeroes_inputs_and_scales_the_rest() -> None:
    adapted, x = layer(dropout=[0.25, 0.0, 0.0]), randn(TRIALS * ROWS, IN).requires_grad_()
    mask = (torch.rand(ROWS, IN, generator=torch.Generator().manual_seed(10)) >= 0.25) / 0.75
    assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
    full_mask = torch.cat([mask, torch.ones(2 * ROWS, IN)])
    ours, theirs = adapted(x), adapted.base(x) + reference(adapted, x * full_mask) - adapted.base(x * full_mask)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    pull = randn(TRIALS * ROWS, OUT, seed=12)
    trained = [adapted.lora_A, adapted.lora_B, x]
    for own, their in zip(
        torch.autograd.grad(ours, trained, pull), torch.autograd.grad(theirs, trained, pull), strict=True
    ):
        torch.testing.assert_close(own, their, atol=1e-4, rtol=1e-5)


def trial(lora_A: Tensor, lora_B: Tensor, **traits: bool) -> TrialFactors:
    return TrialFactors(lora_A, lora_B, scaling=1.0, dropout=0.0, dropout_rng=torch.Generator(), **traits)


def plain(lora_A: Tensor, lora_B: Tensor, **traits: bool) -> LoRALinear:
    """Two trials on one layer: one with these factors, and one that trains both of its own."""
    base = nn.Linear(IN, OUT).requires_grad_(False)
    other = trial(randn(RANK, IN, seed=3), randn(OUT, RANK, seed=4))
    return LoRALinear(base, [trial(lora_A, lora_B, **traits), other], RANK)


def test_lora_keeps_a_b_frozen_that_is_all_zeros() -> None:
    adapted = plain(randn(RANK, IN), torch.zeros(OUT, RANK), trains_B=False)
    adapted(randn(2 * ROWS, IN, seed=9)).square().sum().backward()
    assert adapted.lora_B.grad is not None
    assert not adapted.lora_B.grad[0].any()
    assert adapted.lora_B.grad[1].all()
    assert adapted.trained_numbers(0) == {"lora_A": RANK * IN}
    assert adapted.trained_numbers(1) == {"lora_A": RANK * IN, "lora_B": RANK * OUT}
    assert torch.equal(adapted.factors(0)["lora_B"], torch.zeros(OUT, RANK))


def test_lora_counts_a_base_moved_by_zeros_as_moved() -> None:
    adapted = plain(torch.zeros(RANK, IN), torch.zeros(OUT, RANK), moves_base=True)
    moved_A, moved_B = adapted.moved_factors(0) or pytest.fail("it was moved")
    assert moved_A.shape == (RANK, IN)
    assert moved_B.shape == (OUT, RANK)
    assert adapted.moved_factors(1) is None
    assert not adapted.moved(1).any()


def test_lora_gives_each_trial_its_own_tensors_without_padding() -> None:
    base = nn.Linear(IN, OUT).requires_grad_(False)
    none = trial(torch.empty(0, IN), torch.empty(OUT, 0), trains_bias=True)
    one = trial(randn(1, IN), randn(OUT, 1))
    adapted = LoRALinear(base, [none, one], padded_rank=4)
    assert adapted.lora_A.shape == (2, 4, IN)
    assert adapted.ranks == (0, 1)
    assert {name: tuple(tensor.shape) for name, tensor in adapted.tensors(0).items()} == {"bias": (OUT,)}
    assert {name: tuple(tensor.shape) for name, tensor in adapted.tensors(1).items()} == {
        "lora_A": (1, IN),
        "lora_B": (OUT, 1),
    }
    assert torch.equal(adapted.factors(1)["lora_A"], one.lora_A)
    assert list(adapted.trained_parameters()) == ["lora_A", "lora_B", "bias"]
