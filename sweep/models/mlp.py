"""A multi-layer perceptron: linear layers with ReLU between them."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sweep.models.model import Model


class MLP(Model):
    """Map (N, widths[0]) to (N, widths[-1]); with two widths it is one linear layer."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.widths = tuple(widths)
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairs)
        everything = tuple(f"layers.{index}" for index in range(len(self.layers)))
        self.presets = {"all_linear": everything, "mlp": everything}
        self.stages = everything

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs; no activation after the last layer."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)
