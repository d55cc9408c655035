"""Trained numbers, memory and arithmetic of a LoRA on a model, beside full fine-tuning.

In, out are a layer's widths, r the rank. FLOPs count the products of the linear layers in one training step, per
token (or row): 2 for each multiplication and addition.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sweep.adapters.options import AdapterOptions
from sweep.adapters.targets import select
from sweep.params.shapes import Shape

FLOAT32_BYTES = 4
ADAM_BYTES = 12
"""For each trained float32 number: its gradient and Adam's two moments."""


@dataclass(frozen=True)
class Account:
    """What training costs; ``rank`` is None for full fine-tuning."""

    model: str
    targets: str
    rank: int | None
    layers: int
    trainable_params: int
    total_params: int
    flops_per_token: int

    @property
    def trainable_ratio(self) -> float:
        """The trained share of all numbers, a fraction."""
        return self.trainable_params / self.total_params

    @property
    def saved_bytes(self) -> int:
        """The size of what training changes, as a float32 file."""
        return FLOAT32_BYTES * self.trainable_params

    @property
    def optimizer_bytes(self) -> int:
        """Gradients and Adam's moments, in float32."""
        return ADAM_BYTES * self.trainable_params

    def as_dict(self) -> dict[str, Any]:
        """All fields and what follows from them, for JSON."""
        derived = ("trainable_ratio", "saved_bytes", "optimizer_bytes")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def lora(shape: Shape, targets: str, rank: int) -> Account:
    """A LoRA of ``rank`` on ``targets``: a preset, a regular expression, or names joined by commas.

    It trains Σ r·(in + out) numbers. Raises ConfigError when nothing matches.
    """
    listed = tuple(targets.split(","))
    is_list = len(listed) > 1 or any(name.rpartition(".")[2] == targets for name in shape.linears)
    adapter = AdapterOptions(
        kind="lora",
        rank=rank,
        alpha=1.0,
        init="kaiming",
        targets=listed if is_list else targets,
        scaling="alpha/rank",
        dropout=0.0,
        bias="none",
    )
    chosen = select(adapter, list(shape.linears), shape.presets)
    added = sum(rank * sum(shape.linears[name]) for name in chosen)
    return Account(
        shape.name, targets, rank, len(chosen), added, shape.params + added, _lora_flops(shape, set(chosen), rank)
    )


def full(shape: Shape) -> Account:
    """Full fine-tuning: every number is trained."""
    flops = sum(6 * i * o for i, o in shape.linears.values())
    if not shape.embeds:
        flops -= sum(2 * i * o for i, o in shape.stages[0].values())
    return Account(shape.name, "full", None, len(shape.linears), shape.params, shape.params, flops)


def _lora_flops(shape: Shape, chosen: set[str], rank: int) -> int:
    """Forward 2·in·out for each layer, the same again for its input's gradient, and 6·r·(in + out) where it is adapted.

    No gradient flows to an input that no adapted layer has touched: the layers before the first adapted one, it
    and those that read the same input have none to compute.
    """
    flops, touched = 0, False
    for stage in shape.stages:
        for name, (i, o) in stage.items():
            flops += (4 if touched else 2) * i * o
            if name in chosen:
                flops += 6 * rank * (i + o) - (0 if touched else 2 * rank * i)
        touched = touched or not chosen.isdisjoint(stage)
    return flops
