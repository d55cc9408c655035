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
    X, Y, weight, bias = (tensor.double() for tensor in (X, Y, weight, bias))
    R = Y - bias - X @ weight.T
    if free_bias:
        X, R = X - X.mean(0), R - R.mean(0)
    Q = torch.linalg.qr(X).Q
    singular = torch.linalg.svd(Q.T @ R, full_matrices=False).S
    unexplained = R.square().sum() - singular[:rank].square().sum()
    return max(0.0, unexplained.item()) / R.numel()


def population_risks(shift: Tensor, covariance_root: Tensor, noise: float) -> tuple[float, ...]:
    """Expected squared error per output of the best update of rank r = 0, 1, …: σ² + (1/O)·Σ_{i>r} sᵢ(ΔW* Σ^½)².

    Args:
        shift: the planted ΔW* (O, I).
        covariance_root: Σ^½ (I, I) of the inputs.
        noise: σ, the standard deviation of the targets' noise.

    """
    singular = torch.linalg.svdvals(shift.double() @ covariance_root.double())
    return tuple(noise**2 + singular[r:].square().sum().item() / len(shift) for r in range(len(singular) + 1))
