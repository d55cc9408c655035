"""The exact optimum of a low-rank update in linear regression, for comparison with a trained adapter.

For inputs X (N, I), targets Y (N, O) and a frozen map with weight W (O, I) and bias b, the best update of
rank r is the reduced-rank regression of the residual (Izenman 1975; Eckart and Young 1936).
"""

import torch
from torch import Tensor


def best_mse(X: Tensor, Y: Tensor, weight: Tensor, bias: Tensor, rank: int, free_bias: bool = False) -> float:
    """The lowest mean squared error on (X, Y) that W plus any update of ``rank`` reaches.

    With R = Y − b − X Wᵀ, the thin QR factorisation X = Q Rₓ and the singular values sᵢ of QᵀR it is
    (‖R‖² − Σ_{i≤r} sᵢ²) / (N·O). A free bias centres X and R first. Computed in float64.
    """
    X, R, singular, *_ = _residual(X, Y, weight, bias, free_bias)
    unexplained = R.square().sum() - singular[:rank].square().sum()
    return max(0.0, unexplained.item()) / R.numel()


def best_update(X: Tensor, Y: Tensor, weight: Tensor, bias: Tensor, rank: int, free_bias: bool = False) -> Tensor:
    """The update Δ (O, I) that reaches ``best_mse``: Δᵀ = Rₓ⁻¹ U_r S_r V_rᵀ."""
    _, _, singular, R_x, U, Vt = _residual(X, Y, weight, bias, free_bias)
    projected = U[:, :rank] * singular[:rank] @ Vt[:rank]
    return torch.linalg.solve_triangular(R_x, projected, upper=True).T


def population_risks(shift: Tensor, covariance_root: Tensor, noise: float) -> tuple[float, ...]:
    """Expected squared error per output of the best update of rank r = 0, 1, …: σ² + (1/O)·Σ_{i>r} sᵢ(ΔW* Σ^½)².

    Args:
        shift: the planted ΔW* (O, I).
        covariance_root: Σ^½ (I, I) of the inputs.
        noise: σ, the standard deviation of the targets' noise.

    """
    singular = torch.linalg.svdvals(shift.double() @ covariance_root.double())
    return tuple(noise**2 + singular[r:].square().sum().item() / len(shift) for r in range(len(singular) + 1))


def _residual(
    X: Tensor, Y: Tensor, weight: Tensor, bias: Tensor, free_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    X, Y, weight, bias = (tensor.double() for tensor in (X, Y, weight, bias))
    R = Y - bias - X @ weight.T
    if free_bias:
        X, R = X - X.mean(0), R - R.mean(0)
    Q, R_x = torch.linalg.qr(X)
    U, singular, Vt = torch.linalg.svd(Q.T @ R, full_matrices=False)
    return X, R, singular, R_x, U, Vt
