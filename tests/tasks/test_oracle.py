"""The closed form of the best low-rank update against brute force and against its own update."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sweep.tasks.toy_regression.oracle import best_mse, population_risks
from tests.support.builders import randn

N, IN, OUT = 60, 7, 5


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    X = randn(N, IN, seed=1) @ randn(IN, IN, seed=2)  # anisotropic: where a plain SVD of ΔW would be wrong
    Y = X @ randn(OUT, IN, seed=3).T + randn(N, OUT, seed=4) + 3
    return X, Y, randn(OUT, IN, seed=5), randn(OUT, seed=6)


def mse_of(update: Tensor, X: Tensor, Y: Tensor, weight: Tensor, bias: Tensor, free_bias: bool = False) -> float:
    residual = Y.double() - bias - X.double() @ (weight.double() + update).T
    if free_bias:
        residual = residual - residual.mean(0)
    return residual.square().mean().item()


def best_update(X: Tensor, Y: Tensor, weight: Tensor, bias: Tensor, rank: int, free_bias: bool) -> Tensor:
    """Δ (O, I) of reduced-rank regression: with X = Q Rₓ and QᵀR = U S Vᵀ it is Δᵀ = Rₓ⁻¹ U_r S_r V_rᵀ."""
    X, R = X.double(), Y.double() - bias.double() - X.double() @ weight.double().T
    if free_bias:
        X, R = X - X.mean(0), R - R.mean(0)
    Q, R_x = torch.linalg.qr(X)
    U, S, Vt = torch.linalg.svd(Q.T @ R, full_matrices=False)
    return torch.linalg.solve_triangular(R_x, U[:, :rank] * S[:rank] @ Vt[:rank], upper=True).T


@pytest.mark.parametrize("free_bias", [False, True])
@pytest.mark.parametrize("rank", range(OUT + 1))
def test_oracle_is_the_error_of_the_best_update_of_its_rank(rank: int, free_bias: bool) -> None:
    X, Y, weight, bias = problem()
    update = best_update(X, Y, weight, bias, rank, free_bias)
    assert torch.linalg.matrix_rank(update, rtol=1e-9) == rank
    expected = best_mse(X, Y, weight, bias, rank, free_bias)
    assert mse_of(update, X, Y, weight, bias, free_bias) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("free_bias", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_oracle_is_reached_and_not_beaten_by_a_search_over_factors(rank: int, free_bias: bool) -> None:
    X, Y, weight, bias = (tensor.double() for tensor in problem())
    found = []
    for seed in range(3):
        lora_A = randn(rank, IN, seed=seed).double().requires_grad_()
        lora_B = randn(OUT, rank, seed=seed + 50).double().requires_grad_()
        own_bias = bias.clone().requires_grad_()
        searched = [lora_A, lora_B, own_bias] if free_bias else [lora_A, lora_B]
        search = torch.optim.LBFGS(
            searched, max_iter=400, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            search.zero_grad()  # noqa: B023
            value = (Y - own_bias - X @ (weight + lora_B @ lora_A).T).square().mean()  # noqa: B023
            value.backward()
            return value

        search.step(loss)
        found.append(loss().item())
    best = best_mse(X, Y, weight, bias, rank, free_bias)
    assert min(found) >= best * (1 - 1e-9)
    assert min(found) == pytest.approx(best, rel=1e-6)


def test_oracle_of_rank_zero_is_the_base_and_of_full_rank_least_squares() -> None:
    X, Y, weight, bias = problem()
    base = (Y - bias - X @ weight.T).square().mean().item()
    assert best_mse(X, Y, weight, bias, 0) == pytest.approx(base, rel=1e-6)
    solution = torch.linalg.lstsq(X.double(), Y.double() - bias).solution
    least = (Y.double() - bias - X.double() @ solution).square().mean().item()
    assert best_mse(X, Y, weight, bias, OUT) == pytest.approx(least, rel=1e-9)
    with_ones = torch.cat([X, torch.ones(N, 1)], 1).double()
    free = (Y.double() - with_ones @ torch.linalg.lstsq(with_ones, Y.double()).solution).square().mean().item()
    assert best_mse(X, Y, weight, bias, OUT, free_bias=True) == pytest.approx(free, rel=1e-9)


def test_oracle_falls_with_rank_and_stays_at_full_rank() -> None:
    floors = [best_mse(*problem(), rank) for rank in range(OUT + 3)]
    assert all(high > low for high, low in pairwise(floors[: OUT + 1]))
    assert floors[OUT] == floors[OUT + 1] == floors[OUT + 2]


def test_oracle_without_noise_is_zero_at_the_planted_rank() -> None:
    X, _, weight, bias = problem()
    shift = randn(OUT, 2, seed=8) @ randn(2, IN, seed=9)
    Y = X.double() @ (weight + shift).double().T + bias
    assert best_mse(X, Y, weight, bias, 1) > 0.1
    assert best_mse(X, Y, weight, bias, 2) < 1e-12


def test_oracle_of_fewer_samples_than_inputs_is_still_the_best_error() -> None:
    X, Y, weight, bias = problem()
    assert best_mse(X[:4], Y[:4], weight, bias, 4) < 1e-12
    assert best_mse(X[:4], Y[:4], weight, bias, 1) > 0.01


def test_oracle_population_risk_is_the_mean_error_on_fresh_data() -> None:
    shift, root, noise, rank = randn(OUT, IN, seed=10), randn(IN, IN, seed=11), 0.5, 2
    symmetric = root @ root.T / IN
    left, s, right = torch.linalg.svd(shift @ symmetric)
    update = left[:, :rank] * s[:rank] @ right[:rank] @ torch.linalg.inv(symmetric)
    X = randn(200_000, IN, seed=12) @ symmetric
    Y = X @ shift.T + noise * randn(200_000, OUT, seed=13)
    measured = (Y - X @ update.T).square().mean().item()
    risks = population_risks(shift, symmetric, noise)
    assert risks[rank] == pytest.approx(measured, rel=0.01)  # 1e6 squares: 0.2 %
    assert len(risks) == OUT + 1
    assert risks[OUT] == noise**2
