"""A small decoder in the shape of Llama: RMSNorm, rotary positions, SwiGLU, no biases (Touvron et al. 2023).

Shapes: B rows (of all trials), S positions, D width, H heads, E width of one head, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweep.models.checkpoint import checkpointed
from sweep.models.fused import RMSNorm, rotate
from sweep.models.model import Model

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


class Llama(Model):
    """Map token numbers (B, S) to logits (B, S, V) of the next token. S is at most ``context``."""

    can_checkpoint = True

    cos: Tensor
    sin: Tensor

    def __init__(self, vocabulary: int, layers: int, width: int, heads: int, hidden: int, context: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm = RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary, bias=False)
        cos_S_E, sin_S_E = rotations(context, width // heads)
        self.register_buffer("cos", cos_S_E, persistent=False)
        self.register_buffer("sin", sin_S_E, persistent=False)
        self.presets = {
            "all_linear": ATTENTION + FEED_FORWARD,
            "attention": ATTENTION,
            "mlp": FEED_FORWARD,
            "qv": ("q_proj", "v_proj"),
        }
        self.stages = (*(f"blocks.{index}" for index in range(layers)), "norm", "head")
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear | nn.Embedding)):
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, tokens_B_S: Tensor) -> Tensor:
        """Compute the logits of the character after each position."""
        length = tokens_B_S.shape[1]
        x_B_S_D = self.embedding(tokens_B_S)
        for block in self.blocks:
            arguments = (x_B_S_D, self.cos[:length], self.sin[:length])
            x_B_S_D = checkpointed(block, *arguments) if self.checkpointing else block(*arguments)
        return self.head(self.norm(x_B_S_D))


class Block(nn.Module):
    """Attention and a gated feed-forward part, each after a norm and around a residual."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.input_norm = RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.post_attention_norm = RMSNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, hidden)

    def forward(self, x_B_S_D: Tensor, cos_S_E: Tensor, sin_S_E: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, D)."""
        x_B_S_D = x_B_S_D + self.attention(self.input_norm(x_B_S_D), cos_S_E, sin_S_E)
        return x_B_S_D + self.mlp(self.post_attention_norm(x_B_S_D))


class Attention(nn.Module):
    """Causal self-attention with rotary positions (Su et al. 2021)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_B_S_D: Tensor, cos_S_E: Tensor, sin_S_E: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, D)."""
        q_B_H_S_E = rotate(self._split(self.q_proj(x_B_S_D)), cos_S_E, sin_S_E)
        k_B_H_S_E = rotate(self._split(self.k_proj(x_B_S_D)), cos_S_E, sin_S_E)
        v_B_H_S_E = self._split(self.v_proj(x_B_S_D))
        mixed_B_H_S_E = F.scaled_dot_product_attention(q_B_H_S_E, k_B_H_S_E, v_B_H_S_E, is_causal=True)
        return self.o_proj(mixed_B_H_S_E.transpose(1, 2).flatten(2))

    def _split(self, x_B_S_D: Tensor) -> Tensor:
        return x_B_S_D.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_B_S_D: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, D)."""
        return self.down_proj(F.silu(self.gate_proj(x_B_S_D)) * self.up_proj(x_B_S_D))


def rotations(length: int, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (S, E) of the rotary angles position · 10000^(−2i/E), on the CPU wherever modules are made."""
    frequency = 10000 ** -(torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu") / head_width)
    angle_S_E = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequency).repeat(1, 2)
    return angle_S_E.cos(), angle_S_E.sin()
