"""The loop: what one update does, batches, accumulation, rows, and trials that diverge or are cut off."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from sweep.adapters.fold import Folded, export, fold_full
from sweep.tasks.task import Batch, Examples
from sweep.tasks.toy_regression.task import toy_regression
from sweep.training.loop import NoGradientError
from tests.support.builders import (
    InOrder,
    Run,
    attach,
    bits,
    equal,
    lora,
    mlp,
    optimizer,
    pairs,
    randn,
    regression,
    run,
    squared_error,
    training,
)

TASK = squared_error()
DOMAIN = InOrder(pairs(12, 8, rows=8, batches=20))


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "normal"])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_train_from_b_zero_first_moves_b_alone(init: str, name: str) -> None:
    folded = attach(mlp(12, 20, 8), lora(init=init))
    before = bits(folded.model)
    run(folded, TASK, DOMAIN, [optimizer(name=name, lr=0.01)], training(steps=1))
    for layer in ("layers.0", "layers.1"):
        after = folded.model.state_dict()
        assert torch.equal(after[f"{layer}.lora_A"], before[f"{layer}.lora_A"])
        change = after[f"{layer}.lora_B"].abs()
        if name == "sgd":
            assert change.max() > 0
        else:  # the first update of Adam is lr·g/(|g| + ε)
            assert change.max().item() == pytest.approx(0.01, rel=1e-5)
            assert change.median().item() == pytest.approx(0.01, rel=1e-3)


def test_train_from_a_zero_first_moves_a_alone() -> None:
    folded = attach(mlp(12, 20, 8), lora(init="init_b"))
    before = bits(folded.model)
    run(folded, TASK, DOMAIN, [optimizer()], training(steps=1))
    assert torch.equal(folded.layers["layers.0"].lora_B, before["layers.0.lora_B"])
    assert folded.layers["layers.0"].lora_A.abs().max().item() == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_train_accumulates_batches_as_one_bigger_batch(name: str) -> None:
    parts = DOMAIN.ordered[:12]
    whole = [
        Batch(torch.cat([b.inputs for b in parts[i : i + 3]]), torch.cat([b.targets for b in parts[i : i + 3]]))
        for i in range(0, 12, 3)
    ]
    runs = [
        run(
            attach(mlp(12, 20, 8), lora()),
            TASK,
            domain,
            [optimizer(name=name, clip_norm=1.0)],
            training(steps=4, accumulation=n),
        )
        for domain, n in ((InOrder(parts), 3), (InOrder(whole), 1))
    ]
    # the mean of three means of 8 rows against one of 24: float32 sums in another order
    assert runs[0].losses() == pytest.approx(runs[1].losses(), rel=1e-6)
    for name_, value in runs[0].folded.parameters.items():
        torch.testing.assert_close(value, runs[1].folded.parameters[name_], atol=2e-6, rtol=1e-5)


def test_train_loss_is_the_mean_over_a_trials_own_rows() -> None:
    folded = attach(mlp(12, 20, 8), lora(), lora(init="both_random"))
    batch = DOMAIN.ordered[0]
    expected = [TASK.loss(folded.merged(trial)(batch.inputs), batch.targets).mean().item() for trial in range(2)]
    losses = [row[1]["train/loss"] for row in run(folded, TASK, DOMAIN, [optimizer()] * 2, training(steps=1)).rows]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_train_shows_equal_seeds_equal_batches_and_others_not() -> None:
    domain = toy_regression(regression()).target
    folded = attach(mlp(12, 20, 8), lora(), lora(), lora(), seeds=[0, 0, 0])
    done = run(folded, TASK, domain, [optimizer()] * 3, training(steps=3), seeds=[5, 6, 5])
    assert done.losses(0) == done.losses(2)
    assert done.losses(0)[0] != done.losses(1)[0]


def test_train_shows_every_example_once_an_epoch() -> None:
    numbers = torch.arange(10.0)[:, None]
    domain = Examples(Batch(numbers, numbers), Batch(numbers, numbers))
    drawn = domain.batches(torch.Generator().manual_seed(0), 4)
    seen = torch.cat([next(drawn).inputs for _ in range(5)])[:, 0]
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    again = domain.batches(torch.Generator().manual_seed(0), 4)
    assert torch.equal(torch.cat([next(again).inputs for _ in range(5)])[:, 0], seen)


def test_train_gives_rows_at_their_intervals_and_at_the_end() -> None:
    calls: list[int] = []

    def evaluate() -> list[dict[str, float]]:
        calls.append(len(calls))
        return [{"eval/loss": 0.5}]

    steps: list[int] = []
    done = run(
        attach(mlp(12, 20, 8), lora()),
        TASK,
        DOMAIN,
        [optimizer(lr=0.5, schedule="linear")],
        training(steps=10, log_every=4, eval_every=5),
        evaluate=lambda _: evaluate(),
        on_step=steps.append,
    )
    [rows] = done.rows
    assert {step: sorted(row) for step, row in rows.items()} == {
        4: ["train/loss", "train/lr"],
        5: ["eval/loss", "train/loss", "train/lr"],
        8: ["train/loss", "train/lr"],
        10: ["eval/loss", "train/loss", "train/lr"],
    }
    assert rows[8]["train/lr"] == pytest.approx(0.5 * 0.3)
    assert len(calls) == 2
    assert steps == list(range(1, 11))


def test_each_trial_goes_back_to_its_best_evaluation_and_to_the_first_of_equal_ones() -> None:
    losses = iter([[3.0, 1.0, math.nan], [1.0, 2.0, 4.0], [2.0, 1.0, 5.0], [1.0, 0.5, math.inf]])

    def pack(steps: int, keep: str = "last") -> Run:
        settings = [optimizer(lr=lr) for lr in (1e-3, 2e-3, 3e-3)]
        how = training(steps=steps, eval_every=5, keep=keep)
        folded = attach(mlp(12, 20, 8), lora(), lora(init="pissa"), lora(bias="none", rank=3))

        def evaluate(_: Folded) -> list[dict[str, float]]:
            return [{"eval/loss": loss} for loss in next(losses)] if keep == "best" else [{"eval/loss": 0.0}] * 3

        return run(folded, TASK, DOMAIN, settings, how, evaluate=evaluate)

    done = pack(20, keep="best")
    assert done.trained.kept_at == [10, 20, 10]
    for trial, step in enumerate(done.trained.kept_at):
        assert step is not None
        assert equal(export(done.folded, trial), export(pack(step).folded, trial))
    assert pack(20).trained.kept_at == [None] * 3


@pytest.mark.parametrize("lr", [1e10, 1e30, 1e300])
def test_train_stops_a_diverged_trial_alone(lr: float) -> None:
    def pack(*rates: float) -> Any:
        folded = attach(mlp(12, 20, 8), *(lora(init="pissa"),) * len(rates))
        settings = [
            optimizer(name="sgd", lr=rate, weight_decay=0.01, clip_norm=5.0 if rate < 1 else None) for rate in rates
        ]
        return run(folded, TASK, DOMAIN, settings, training(steps=12))

    alone, together = pack(0.01), pack(0.01, lr, 0.01)
    assert alone.trained.diverged_at == [None]
    assert together.trained.diverged_at[0] is together.trained.diverged_at[2] is None
    bad = together.trained.diverged_at[1]
    assert bad is not None
    assert 1 < bad <= 12
    assert list(together.rows[1]) == list(range(1, 13))
    assert all(together.rows[1][step] for step in range(1, bad))  # what came before is kept
    assert not any(together.rows[1][step] for step in range(bad, 13))
    for trial in (0, 2):
        assert together.rows[trial] == alone.rows[0]
        for name, value in alone.folded.parameters.items():
            assert torch.equal(together.folded.parameters[name][trial], value[0])


def test_train_stops_when_every_trial_has_diverged() -> None:
    steps: list[int] = []
    folded = attach(mlp(12, 20, 8), lora(init="pissa"), lora(init="pissa"))
    settings = [optimizer(name="sgd", lr=1e30)] * 2
    done = run(folded, TASK, DOMAIN, settings, training(steps=1000), on_step=steps.append)
    assert None not in done.trained.diverged_at
    assert len(steps) < 20


class Copying(nn.Module):
    """The layer of a tutorial: it wraps W + AB in a new parameter, so that A and B are cut off from the loss."""

    def __init__(self, weight: Tensor, lora_A: Tensor, lora_B: Tensor):
        super().__init__()
        self.weight = nn.Parameter((weight + lora_A @ lora_B)[:, : len(weight)])

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_train_refuses_an_adapter_that_is_cut_off_from_the_loss() -> None:
    folded = attach(mlp(12, 8), lora(init="both_random"))
    layer = folded.layers["layers.0"]
    copying = Copying(layer.base.weight.T, layer.lora_A[0].T, layer.lora_B[0].T)
    folded.model.set_submodule("layers.0", copying)
    before = bits(folded.model)
    with pytest.raises(NoGradientError, match="no adapter parameter receives a gradient"):
        run(folded, TASK, DOMAIN, [optimizer()], training())
    assert copying.weight.grad is not None  # what the tutorial trains instead is a full copy
    assert layer.lora_A.grad is layer.lora_B.grad is None
    assert equal(bits(folded.model), before)


class Endless:
    """Rows that never repeat, to see that training uses all of them."""

    held_out, positions = DOMAIN.ordered[0], 1

    def batches(self, rng: Generator, rows: int) -> Iterator[Batch]:
        while True:
            x = torch.randn(rows, 12, generator=rng)
            yield Batch(x, x @ randn(12, 8))


def test_train_in_full_learns_a_linear_map_exactly() -> None:
    folded = fold_full(mlp(12, 8))
    settings = [optimizer(name="adam", lr=0.1, schedule="cosine")]
    done = run(folded, TASK, Endless(), settings, training(steps=300, batch_size=64))
    assert done.losses()[0] > 1
    assert done.losses()[-1] < 1e-8
