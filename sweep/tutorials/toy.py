"""T0: a LoRA layer 64 → 10 of rank 4 on random data, ten epochs of Adam."""

import torch
from torch import nn

from sweep.training.loop import Callbacks, Rows, train
from sweep.tutorials.report import Row
from sweep.tutorials.trials import Trained, Trials, restored

TITLE = "T0: the introductory LoRA layer"


def rows(trials: Trials) -> list[Row]:
    """Counts, the ruined start, and what could have been reached."""
    lora = trials.where({"adapter.kind": "lora"})
    random, zero = (lora.where({"adapter.init": init}) for init in ("both_random", "kaiming"))
    short, long = ({"training.steps": steps, "adapter.bias": "none"} for steps in (10, 1000))
    base = trials.where({"adapter.kind": "none"})
    flagged = sum(any("not the base" in note for note in one.record.notes) for one in random)
    first, last = _their_own_run(next(iter(random.where({"adapter.bias": "all", "training.steps": 10}))))
    return [
        Row(
            "trained numbers",
            "296 of 946, 31 %",
            f"its code: {_count(lora, 'all')}",
            "wrong",
            "Its code freezes `linear.weight` and leaves `linear.bias` trainable; with the bias frozen "
            f"(`adapter.bias=none`, our default) it is {_count(lora, 'none')}.",
        ),
        Row(
            "loss at its start",
            "(no figures)",
            f"{first:.4f}; the base alone has {base.mean('eval/train_mse'):.5f}",
            "not said",
            "A and B are both drawn from N(0, 1), so that training begins with a large random update on top of the base. "
            f'The records of {flagged} of {len(random)} such trials carry the note "adapter start is not the base model"; '
            "with B = 0 the start is the base, bit for bit.",
        ),
        Row(
            "loss after 10 epochs",
            '"trains quickly"',
            f"{last:.4f}",
            "wrong",
            f"Ten epochs of Adam at 0.01 leave it {last / base.mean('eval/train_mse'):.0f} times as bad as doing nothing. Other draws of the same start end "
            f"at {random.where(short).spread('eval/train_mse', 1)}, and after 1,000 epochs at "
            f"{random.where(long).spread('eval/train_mse', 4)}; from B = 0 ten epochs reach "
            f"{zero.where(short).spread('eval/train_mse', 4)}, 1,000 epochs {zero.where(long).spread('eval/train_mse', 4)}.",
        ),
        Row(
            "the best that rank 4 can do",
            "(not said)",
            f"{zero.where(long).mean('eval/oracle_mse'):.5f}",
            "not said",
            "The exact optimum of a rank-4 update on these 1,000 samples, by reduced-rank regression; `eval/regret` in the "
            "records is the distance to it.",
        ),
        Row(
            "what is learnt",
            '"a task-specific update"',
            f"held-out: {base.mean('eval/loss'):.3f} → {zero.where(long).mean('eval/loss'):.3f}; all zeros: {1.0:.3f}",
            "wrong",
            "Targets are random and know nothing of the inputs. What falls is the error of an untrained base whose outputs "
            "are noise themselves; predicting zero would be better than every model here.",
        ),
    ]


def _count(lora: Trials, bias: str) -> str:
    params = next(iter(lora.where({"adapter.bias": bias}))).record.params
    return f"{params['trainable']:.0f} of {params['total']:.0f}, {params['trainable_ratio']:.2%}"


def _their_own_run(trial: Trained) -> tuple[float, float]:
    """First and last loss from the factors that the tutorial draws under its seed 42, after its data and its layer."""
    model = restored(trial, untrained=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        torch.randn(1000, 64), torch.randn(1000, 10), nn.Linear(64, 10)
        lora_A, lora_B = torch.randn(64, 4), torch.randn(4, 10)
    layer = model.folded.layers["layers.0"]
    layer.lora_A.data[0], layer.lora_B.data[0] = lora_A.T, lora_B.T
    losses: list[float] = []

    def keep(step: int, rows: Rows) -> None:
        losses.extend(row["train/loss"] for row in rows if row is not None)

    settings, how = model.trial.optimizer, model.trial.training
    callbacks = Callbacks(on_rows=keep)
    train(model.folded, model.task, model.task.target, [settings], how, [model.trial.seed], callbacks)
    return losses[0], losses[-1]
