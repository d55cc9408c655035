"""T4: a LoRA on a Llama: which projections, what it costs, and the merge for deployment."""

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.adapters.inits import BaseWeight
from sweep.adapters.inits.random import kaiming
from sweep.hardware import threads
from sweep.params.account import full as full_account
from sweep.params.account import lora as account
from sweep.params.shapes import shape_of
from sweep.tutorials.report import Row
from sweep.tutorials.trials import Trained, Trials, restored

TITLE = "T4: LoRA on a Llama"
REPEATS = 40


def rows(trials: Trials) -> list[Row]:
    """Counts of the real model, both choices of targets beside full fine-tuning, and the merge."""
    lora = trials.where({"adapter.kind": "lora"})
    qv, all_linear = (lora.where({"adapter.targets": targets}).tuned() for targets in ("qv", "all_linear"))
    full, base = trials.where({"adapter.kind": "full"}).tuned(), trials.where({"adapter.kind": "none"})
    llama = shape_of("Llama-2-7B")
    small, seven = (account(llama, targets, 8) for targets in ("q_proj,v_proj", "all_linear"))
    whole = full_account(llama)
    one = next(iter(all_linear))
    difference, layers, times = _merge(one)
    return [
        Row(
            "Llama-2-7B, q and v, r=8",
            '"a very small share"',
            f"{small.trainable_params:,} of {small.total_params:,}, {small.trainable_ratio:.4%}",
            "holds",
        ),
        Row(
            "all seven projections, r=8",
            '"as the model needs"',
            f"{seven.trainable_params:,} of {seven.total_params:,}, {seven.trainable_ratio:.4%}",
            "holds",
        ),
        Row(
            "gradients and Adam, float32",
            "much less memory",
            f"{small.optimizer_bytes / 1e6:.0f} MB for {whole.optimizer_bytes / 1e9:.0f} GB",
            "holds",
        ),
        Row(
            "arithmetic of training",
            '"much faster"',
            f"{seven.flops_per_token / whole.flops_per_token:.0%} of full fine-tuning's",
            "incomplete",
            "What is saved are the products for the frozen weights' gradients, a third of all, and the optimizer's traffic over them; forward "
            "and backward through the model remain. On this machine an update of a LoRA on all seven, packed with other trials, took "
            f"{_step(all_linear) / _step(full):.2f} times as long as one of full fine-tuning.",
        ),
        Row(
            "PEFT draws A from",
            "randn",
            _start_of_A(one),
            "wrong",
            "PEFT's default is kaiming_uniform(a=√5), U(−1/√in, 1/√in), and so is ours; N(0, 1) is `adapter.init=normal`, and "
            "√(3·in) times as large.",
        ),
        Row(
            "its forward pass",
            "(B A) x",
            f"{_their_flops():.2f} times the products of B(A x)",
            "wrong",
            "`lora_B @ lora_A @ x` multiplies from the left: it forms the full ΔW in every pass. PEFT computes B(A x). For 4096 × 4096, "
            "rank 8, 512 tokens, forward, frozen product included. The excerpt also leaves out its own dropout.",
        ),
        Row(
            "loss on the new text",
            "comparable to full",
            _three("eval/loss", qv, all_linear, full),
            "incomplete",
            "All seven come near, q and v alone (the tutorial's choice) do not. "
            f"In this order: q and v, all seven, full fine-tuning, each at the better of two learning rates (mean ± standard deviation, {len(qv)} "
            f"seeds, 100 updates); the base has {base.mean('eval/loss'):.3f}. All seven hold 4.8 times the numbers of q and v.",
        ),
        Row(
            "loss on the old text",
            '"prevents overfitting"',
            _three("eval/source_loss", qv, all_linear, full),
            "incomplete",
            "In 100 updates nothing overfits; what shows is forgetting. "
            f"The base has {base.mean('eval/source_loss'):.3f}: all of them forget, those that train less forget less.",
        ),
        Row(
            "find and replace",
            "isinstance and name",
            f"{layers} of {len(llama_layers(one))} linear layers replaced, the head not",
            "holds",
            "A name that matches nothing is an error here (`adapter.targets`), not a model without an adapter.",
        ),
        Row("merged outputs", "the same", f"logits differ by {difference:.0e} of the largest", "holds"),
        Row(
            "cost after merging",
            "none",
            f"base {times[0]:.1f}, merged {times[1]:.1f}, unmerged {times[2]:.1f} ms",
            "holds",
            f"Processor time of one thread, the least of {REPEATS} forward passes of 16 windows of {one.value('task.context')} characters, taken in turn; the merged model is a plain "
            "model of the same layers.",
        ),
    ]


def llama_layers(trial: Trained) -> dict[str, nn.Module]:
    """The linear layers of the trial's base."""
    model = restored(trial, untrained=True).base.model
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _three(key: str, *trials: Trials) -> str:
    return " / ".join(one.spread(key) for one in trials)


def _step(trials: Trials) -> float:
    """Milliseconds of one update of one trial."""
    each = [one.record.perf["step_ms"] / one.record.perf["pack_size"] for one in trials]
    return sum(each) / len(each)


def _start_of_A(trial: Trained) -> str:  # noqa: N802
    weight = next(iter(llama_layers(trial).values())).weight
    assert isinstance(weight, Tensor)
    lora_A, _ = kaiming.draw(BaseWeight(weight), 8, 1.0, torch.Generator().manual_seed(0))
    return f"uniform: largest entry {lora_A.abs().max() * weight.shape[1] ** 0.5:.2f}/√in"


def _their_flops() -> float:
    """Products of (B A) x beside those of B(A x), the frozen W x included in both."""
    with torch.device("meta"):
        weight, lora_A, lora_B, x = (
            torch.empty(4096, 4096),
            torch.empty(8, 4096),
            torch.empty(4096, 8),
            torch.empty(4096, 512),
        )
    counts = []
    for order in (lambda: lora_B @ lora_A @ x, lambda: lora_B @ (lora_A @ x)):
        with FlopCounterMode(display=False) as counter:
            weight @ x
            order()
        counts.append(counter.get_total_flops())
    return counts[0] / counts[1]


@torch.no_grad()
def _merge(trial: Trained) -> tuple[float, int, tuple[float, float, float]]:
    """Difference of merged and unmerged logits, adapted layers, and ms of a pass of base, merged and unmerged model."""
    model = restored(trial)
    inputs = model.task.target.held_out.inputs[:16]
    merged = model.folded.merged(0).eval()
    unmerged = model.folded.outputs(inputs, sees=[0])
    difference = (unmerged - merged(inputs)).abs().max() / unmerged.abs().max()
    passes = (
        lambda: model.base.model(inputs),
        lambda: merged(inputs),
        lambda: model.folded.outputs(inputs, sees=[0]),
    )
    fastest = [float("inf")] * 3
    with threads(1):
        for _ in range(REPEATS):
            for number, run in enumerate(passes):
                began = time.process_time()
                run()
                fastest[number] = min(fastest[number], 1e3 * (time.process_time() - began))
    return difference.item(), len(model.folded.layers), (fastest[0], fastest[1], fastest[2])
