"""Evaluation: every held-out row counts once, for each trial by itself."""

import pytest
import torch

from sweep.tasks.mnist.task import Mnist
from sweep.tasks.task import Batch, Examples
from sweep.training import evaluate as module
from sweep.training.evaluate import evaluate
from tests.support.builders import InOrder, attach, lora, mlp, randn, squared_error

HELD_OUT = Batch(randn(50, 12), randn(50, 8, seed=1))


def adapters() -> list[object]:
    return [lora(init="both_random"), lora(init="normal", dropout=0.5), lora(init="pissa")]


def test_evaluate_means_the_loss_over_all_held_out_rows() -> None:
    folded = attach(mlp(12, 20, 8), *adapters())
    expected = [(folded.merged(trial)(HELD_OUT.inputs) - HELD_OUT.targets).square().mean().item() for trial in range(3)]
    measured = [row["eval/loss"] for row in evaluate(folded, squared_error(), InOrder([HELD_OUT]))]
    assert measured == pytest.approx(expected, rel=1e-5)


def test_evaluate_does_not_depend_on_the_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = attach(mlp(12, 20, 8), *adapters())
    whole = evaluate(folded, squared_error(), InOrder([HELD_OUT]))
    monkeypatch.setattr(module, "POSITIONS_AT_ONCE", 3 * 7 * 8)  # seven rows of eight outputs for each trial
    assert evaluate(folded, squared_error(), InOrder([HELD_OUT])) == [pytest.approx(row, rel=1e-6) for row in whole]


def test_evaluate_switches_dropout_off_and_restores_the_mode() -> None:
    folded = attach(mlp(12, 20, 8), lora(init="both_random", dropout=0.9))
    folded.model.train()
    first, second = (evaluate(folded, squared_error(), InOrder([HELD_OUT])) for _ in range(2))
    assert first == second
    assert folded.model.training
    folded.model.eval()
    evaluate(folded, squared_error(), InOrder([HELD_OUT]))
    assert not folded.model.training


def test_evaluate_counts_right_and_wrong_digits_by_hand() -> None:
    model = mlp(3, 10)
    model.linears[0].weight.data = torch.zeros(10, 3)
    model.linears[0].weight.data[7, 0] = 1.0
    model.linears[0].weight.data[2, 1] = 1.0
    model.linears[0].bias.data.zero_()
    rows = torch.eye(3)[[0, 0, 0, 1, 1]]  # taken for 7, 7, 7, 2, 2
    examples = Examples(Batch(rows, torch.zeros(5)), Batch(rows, torch.tensor([7, 7, 1, 2, 9])))
    [row] = evaluate(attach(model, lora(rank=1)), Mnist(examples, examples, []), examples)
    assert row["eval/accuracy"] == pytest.approx(3 / 5)
    assert {name: value for name, value in row.items() if "wrong" in name and value} == {
        "eval/wrong_1": 1,
        "eval/wrong_9": 1,
    }
    e = torch.e
    right, wrong = -torch.log(torch.tensor(e / (e + 9))), -torch.log(torch.tensor(1 / (e + 9)))
    assert row["eval/loss"] == pytest.approx(((3 * right + 2 * wrong) / 5).item(), rel=1e-6)
