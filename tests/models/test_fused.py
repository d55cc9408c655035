import torch
from torch import Tensor, nn

from sweep.models.fused import RMSNorm, rotate
from sweep.models.llama import rotations


def test_fused_norm_and_its_gradients_are_pytorchs() -> None:
    x = torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = RMSNorm(16, eps=1e-6).double(), nn.RMSNorm(16, eps=1e-6).double()
    weight = torch.linspace(0.5, 1.5, 16, dtype=torch.float64)
    ours.weight.data.copy_(weight)
    theirs.weight.data.copy_(weight)
    torch.testing.assert_close(*_with_gradients(ours, theirs, x))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_fused_rotation_and_its_gradient_are_llamas() -> None:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = (table.double() for table in rotations(7, 8))

    def composed(x_B_H_S_E: Tensor) -> Tensor:
        first, second = x_B_H_S_E.chunk(2, dim=-1)
        return x_B_H_S_E * cos + torch.cat((-second, first), dim=-1) * sin

    torch.testing.assert_close(*_with_gradients(lambda t: rotate(t, cos, sin), composed, x))


def _with_gradients(ours, theirs, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    results = []
    for function in (ours, theirs):
        inputs = x.clone().requires_grad_()
        outputs = function(inputs)
        (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=x.dtype).view_as(outputs)).sum().backward()
        assert inputs.grad is not None
        results.append([outputs.detach(), inputs.grad])
    return results[0], results[1]
