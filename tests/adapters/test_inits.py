"""Each initialisation against its formula, and against real PEFT where PEFT has it."""

import math
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sweep.adapters.inits.check import check_ranks
from sweep.errors import ConfigError
from sweep.models.mlp import MLP
from sweep.registry import INITS
from tests.support.builders import calibrated, lora, randn

RANK, SCALING = 4, 2.5
OUT, IN = 20, 12
SHAPES = [(20, 12), (12, 20), (12, 12)]
# A float32 decomposition is exact for a matrix some ε‖W‖₂ away: ε = 1.2e-7 and ‖W‖₂ ≈ 8 here, so ten times that.
ROUNDING = 1e-5


class Factors(NamedTuple):
    lora_A: Tensor
    lora_B: Tensor


def draw(init: str, shape: tuple[int, int] = (OUT, IN), rank: int = RANK, seed: int = 7) -> tuple[Tensor, Factors]:
    weight = randn(*shape, seed=1)
    base = MLP([shape[1], shape[0]]).requires_grad_(False)
    base.linears[0].weight.data = weight
    rng = torch.Generator().manual_seed(seed)
    return weight, Factors(*INITS.load(init).draw(calibrated(base)["layers.0"], rank, SCALING, rng))


def peft_layer(weight: Tensor, init: Any, rank: int = RANK, scaling: float = SCALING) -> Any:
    from peft import LoraConfig
    from peft.tuners.lora.layer import Linear

    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    plain.weight.data = weight.clone()
    config = LoraConfig(r=rank, lora_alpha=scaling * rank, init_lora_weights=init)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Linear(plain, "default", config=config, r=rank, lora_alpha=scaling * rank)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("init", INITS.names)
def test_init_draws_the_shapes_of_the_layer_and_the_rank(init: str, shape: tuple[int, int]) -> None:
    _, factors = draw(init, shape)
    assert factors.lora_A.shape == (RANK, shape[1])
    assert factors.lora_B.shape == (shape[0], RANK)


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "normal", "eva"])
def test_init_with_a_zero_b_draws_it_exactly(init: str) -> None:
    _, factors = draw(init)
    assert not factors.lora_B.any()
    assert factors.lora_A.abs().min() > 0


def test_init_b_is_zero_in_a_and_uniform_in_b() -> None:
    _, factors = draw("init_b", (4000, 3))
    assert not factors.lora_A.any()
    bound = 1 / math.sqrt(RANK)
    assert 0.99 * bound < factors.lora_B.abs().max() <= bound
    assert factors.lora_B.var().item() == pytest.approx(bound**2 / 3, rel=0.05)  # 16,000 draws: 1 % standard error


# 40,000 draws: the standard error of a variance is below 1 %, so 5 % is more than five of them.
@pytest.mark.parametrize(
    ("init", "variance"), [("kaiming", 1 / (3 * 10_000)), ("gaussian", 1 / RANK**2), ("normal", 1.0)]
)
def test_init_a_has_the_variance_of_its_formula(init: str, variance: float) -> None:
    _, factors = draw(init, (3, 10_000))
    assert factors.lora_A.var().item() == pytest.approx(variance, rel=0.05)
    assert factors.lora_A.mean().item() == pytest.approx(0, abs=5 * math.sqrt(variance / 40_000))


def test_kaiming_stays_within_one_over_root_in() -> None:
    _, factors = draw("kaiming", (3, 10_000))
    assert 0.0099 < factors.lora_A.abs().max() <= 0.01


def test_both_random_draws_a_and_then_b_from_the_standard_normal() -> None:
    _, factors = draw("both_random", (64, 64), seed=3)
    rng = torch.Generator().manual_seed(3)
    assert torch.equal(factors.lora_A, torch.randn(RANK, 64, generator=rng))
    assert torch.equal(factors.lora_B, torch.randn(64, RANK, generator=rng))


def test_orthogonal_factors_are_not_zero_and_their_product_is() -> None:
    _, factors = draw("orthogonal")
    assert torch.linalg.matrix_rank(factors.lora_A) == torch.linalg.matrix_rank(factors.lora_B) == RANK // 2
    assert (factors.lora_B @ factors.lora_A).abs().max() < 1e-7  # the entries of A and B are near 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("init", "kept"), [("pissa", slice(0, RANK)), ("milora", slice(-RANK, None))])
def test_pissa_and_milora_take_the_top_and_the_bottom_of_the_spectrum(
    init: str, kept: slice, shape: tuple[int, int]
) -> None:
    weight, factors = draw(init, shape)
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    expected = u[:, kept] * s[kept] @ vt[kept]
    torch.testing.assert_close(SCALING * factors.lora_B @ factors.lora_A, expected.float(), atol=ROUNDING, rtol=0)
    # split evenly: B = U√(S/s) and A = √(S/s)Vᵀ have the same Gram matrix, diagonal with S/s
    split = torch.diag(s[kept] / SCALING).float()
    torch.testing.assert_close(factors.lora_A @ factors.lora_A.T, split, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(factors.lora_B.T @ factors.lora_B, split, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_olora_takes_the_first_columns_of_q_and_rows_of_r(shape: tuple[int, int]) -> None:
    weight, factors = draw("olora", shape)
    torch.testing.assert_close(factors.lora_B.T @ factors.lora_B, torch.eye(RANK), atol=ROUNDING, rtol=0)
    # W = QR with R upper triangular: the first r columns of W come from the first r columns of Q alone
    product = factors.lora_B @ factors.lora_A
    torch.testing.assert_close(product[:, :RANK], weight[:, :RANK], atol=ROUNDING, rtol=0)
    assert not factors.lora_A[:, :RANK].tril(-1).any()


# Gaussian: we divide by the rank, PEFT multiplies by its reciprocal. Kaiming: the bound comes out of two roots.
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [2, 4, 6])
@pytest.mark.parametrize(("init", "theirs"), [("kaiming", True), ("gaussian", "gaussian")])
def test_kaiming_and_gaussian_are_those_of_peft_from_the_same_seed(
    init: str, theirs: Any, rank: int, shape: tuple[int, int]
) -> None:
    weight, factors = draw(init, shape, rank)
    layer = peft_layer(weight, theirs, rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layer.reset_lora_parameters("default", theirs)
    torch.testing.assert_close(factors.lora_A, layer.lora_A["default"].weight.data, atol=0, rtol=3e-7)
    assert torch.equal(factors.lora_B, layer.lora_B["default"].weight.data)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [2, 4, 6])
def test_orthogonal_is_that_of_peft_from_the_same_seed_bit_for_bit(rank: int, shape: tuple[int, int]) -> None:
    weight, factors = draw("orthogonal", shape, rank)
    layer = peft_layer(weight, True, rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layer.orthogonal_init("default")
    assert torch.equal(factors.lora_A, layer.lora_A["default"].weight.data)
    assert torch.equal(factors.lora_B, layer.lora_B["default"].weight.data)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_pissa_and_olora_are_those_of_peft(init: str, shape: tuple[int, int]) -> None:
    weight, factors = draw(init, shape)
    layer = peft_layer(weight, init)
    torch.testing.assert_close(factors.lora_A, layer.lora_A["default"].weight.data, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(factors.lora_B, layer.lora_B["default"].weight.data, atol=ROUNDING, rtol=0)
    frozen = weight - SCALING * factors.lora_B @ factors.lora_A
    torch.testing.assert_close(frozen, layer.base_layer.weight.data, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_mica_is_that_of_peft_bit_for_bit(shape: tuple[int, int]) -> None:
    weight, factors = draw("mica", shape)
    layer = peft_layer(weight, "mica")
    assert torch.equal(factors.lora_B, layer.lora_B["default"].weight.data)
    assert torch.equal(factors.lora_A, layer.lora_A["default"].weight.data)
    assert not factors.lora_A.any()
    torch.testing.assert_close(factors.lora_B.T @ factors.lora_B, torch.eye(RANK), atol=ROUNDING, rtol=0)
    bottom = torch.linalg.svdvals(weight)[-RANK:]
    torch.testing.assert_close((factors.lora_B.T @ weight).norm(dim=1), bottom, atol=ROUNDING, rtol=0)


def test_check_ranks_refuses_what_no_layer_can_hold() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank = 13: .* 12$"):
        check_ranks(lora(rank=13), {"wide": (20, 12), "narrow": (10, 12)})


def test_check_ranks_notes_a_rank_above_one_layer() -> None:
    assert check_ranks(lora(rank=12), {"wide": (20, 12), "narrow": (10, 12)}) == [
        "rank 12 is above the full rank 10 of narrow"
    ]
    assert check_ranks(lora(rank=10), {"wide": (20, 12), "narrow": (10, 12)}) == []


@pytest.mark.parametrize("init", ["pissa", "milora", "olora", "mica", "lora_ga"])
def test_check_ranks_refuses_a_decomposition_with_too_few_vectors(init: str) -> None:
    with pytest.raises(ConfigError, match=rf"adapter\.rank = 12: init {init} .*narrow has only 10"):
        check_ranks(lora(rank=12, init=init), {"wide": (20, 12), "narrow": (10, 12)})


def test_check_ranks_refuses_an_odd_rank_for_orthogonal() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank = 3: .*even"):
        check_ranks(lora(rank=3, init="orthogonal"), {"wide": (20, 12)})
