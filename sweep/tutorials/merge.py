"""T2: W + AB on a 1000 × 1000 weight, and a program whose adapter is cut off from the loss."""

import torch
from torch import Tensor, nn

from sweep.training.loop import NoGradientError, train
from sweep.tutorials.report import Row
from sweep.tutorials.trials import Trained, Trials, restored

TITLE = "T2: W + AB"


def rows(trials: Trials) -> list[Row]:
    """Counts, the tutorial's own program, the harness on such a program, and merging."""
    lora, full = (trials.where({"adapter.kind": kind}).tuned() for kind in ("lora", "full"))
    base = trials.where({"adapter.kind": "none"})
    one = next(iter(lora))
    params = one.record.params
    weight, received = _their_program()
    difference, back = _merged(one)
    return [
        Row(
            "trained numbers",
            "A and B alone (20,000)",
            f"{params['trainable']:,.0f} of {one.value('task.in_features') * one.value('task.out_features'):,}",
            "holds",
        ),
        Row(
            "who gets a gradient in its code",
            "A and B",
            received,
            "wrong",
            "`nn.Parameter(weight)` makes a new leaf of W + AB: the graph back to A, B and W is cut, and its layer trains "
            "1,000,000 numbers of its own. Nothing is saved.",
        ),
        Row(
            "such a program here",
            "(no error)",
            _refusal(one),
            "not said",
            "The training loop asks after each backward pass whether any adapter parameter has a gradient, and refuses "
            "(`NoGradientError`); the trial's record says `failed`, not `finished`.",
        ),
        Row(
            "its start",
            '"adjusts W"',
            f"‖AB‖ = {weight:.2f} ‖W‖",
            "wrong",
            "A and B are both N(0, 1), so that the update is three times as large as the weight that it adjusts. One of them "
            "has to start at zero.",
        ),
        Row(
            "held-out error, ΔW of rank 10",
            '"fewer parameters"',
            f"LoRA {lora.mean('eval/loss'):.1e}, full {full.mean('eval/loss'):.1e}, base {base.mean('eval/loss'):.2f}",
            "holds",
            f"Each at the better of two learning rates ({one.value('optimizer.lr'):g} and {full.trained[0].value('optimizer.lr'):g}), "
            f"200 updates of 100 samples, {len(lora)} seeds. Where the change has low rank, 2 % of the numbers learn it "
            "sooner than all of them.",
        ),
        Row("W + AB merged", "the same model", f"outputs differ by {difference:.0e} of the largest", "holds"),
        Row(
            "AB taken out again",
            "(not said)",
            f"W is back within {back:.0e}",
            "not said",
            "Float32 rounding of W + AB − AB: keep the base or the adapter, do not count on getting W back bit for bit.",
        ),
    ]


class _AdjustedLayer(nn.Module):
    """The tutorial's own."""

    def __init__(self, in_features: int, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight[:, :in_features], requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def _their_program() -> tuple[float, str]:
    """The size of its AB beside its W, and who has a gradient after a backward pass."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, 1000, generator=rng).requires_grad_()
    lora_A = nn.Parameter(torch.randn(1000, 10, generator=rng))
    lora_B = nn.Parameter(torch.randn(10, 1000, generator=rng))
    layer = _AdjustedLayer(1000, weight + lora_A @ lora_B)
    layer(torch.randn(1, 1000, generator=rng)).sum().backward()
    named = {"A": lora_A, "B": lora_B, "W": weight, "a full copy": layer.weight}
    has = [name for name, tensor in named.items() if tensor.grad is not None]
    lacks = [name for name, tensor in named.items() if tensor.grad is None]
    size = (lora_A @ lora_B).norm() / weight.norm()
    return size.item(), f"{', '.join(has)}; not {', '.join(lacks)}"


def _refusal(trial: Trained) -> str:
    """What the harness says of a trial whose adapted layer hands on its outputs without their graph."""
    model = restored(trial, untrained=True)
    for layer in model.folded.layers.values():
        layer.register_forward_hook(lambda module, given, outputs: outputs.detach())
    how = model.trial
    try:
        train(model.folded, model.task, model.task.target, [how.optimizer], how.training, [how.seed])
    except NoGradientError as error:
        return f'refused: "{str(error).partition(";")[0]}"'
    return "NOT REFUSED"


def _merged(trial: Trained) -> tuple[float, float]:
    """Largest difference of merged and unmerged outputs, relative to the largest output; and of W and W + AB − AB."""
    model = restored(trial)
    inputs = model.task.target.held_out.inputs
    with torch.no_grad():
        unmerged, plain = model.folded.outputs(inputs, sees=[0]), model.folded.merged(0)
        difference = (unmerged - plain(inputs)).abs().max() / unmerged.abs().max()
    [back] = (p for p in model.folded.unmerged(plain, 0).parameters() if p.ndim == 2)
    [before] = (p for p in model.base.model.parameters() if p.ndim == 2)
    return difference.item(), (back - before).abs().max().item()
