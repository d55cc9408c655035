"""The toy regression: what it draws, and trained adapters beside the exact optimum of their rank."""

import math

import pytest
import torch

from sweep.adapters.fold import fold_full, fold_none
from sweep.adapters.options import AdapterOptions
from sweep.tasks.task import Examples
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.tasks.toy_regression.oracle import best_mse, population_risks
from sweep.tasks.toy_regression.task import ToyRegression, toy_regression
from sweep.training.evaluate import evaluate
from tests.support.builders import FULL, NONE, Run, attach, lora, optimizer, regression, run, training, tutorial


def train(task: ToyRegression, *adapters: AdapterOptions, steps: int = 600, lr: float = 0.03) -> Run:
    """Full batches and a cosine to zero, so that what is left is the optimum and not the schedule's noise."""
    folded = attach(task.base(), *adapters)
    settings = [optimizer(name="adam", lr=lr, schedule="cosine")] * len(adapters)
    how = training(steps=steps, batch_size=len(task.target.train.inputs))
    return run(folded, task, task.target, settings, how)


def closing(done: Run, task: ToyRegression, *adapters: AdapterOptions) -> list[dict[str, float]]:
    return task.closing(done.folded, adapters)


def test_toy_shift_has_its_rank_and_its_size() -> None:
    task = toy_regression(regression(in_features=40, out_features=30, noise=0.0, samples=200, shift_scale=0.5))
    inputs, targets = task.target.train
    [linear] = task.teacher.linears
    residual = targets - task.teacher(inputs)
    shift = torch.linalg.lstsq(inputs, residual).solution.T
    assert torch.linalg.matrix_rank(shift, rtol=1e-4) == 3
    # both are sums of products with the same variance, 1/in each; the ratio of norms is near shift_scale
    assert (shift.norm() / linear.weight.norm()).item() == pytest.approx(0.5, rel=0.25)


def test_toy_noise_and_white_inputs_have_their_moments() -> None:
    task = toy_regression(regression(samples=20_000, shift_rank=3, noise=0.3))
    inputs, targets = task.source.train
    assert (targets - task.teacher(inputs)).std().item() == pytest.approx(0.3, rel=0.01)  # 160,000 draws
    torch.testing.assert_close(inputs.T @ inputs / len(inputs), torch.eye(12), atol=0.05, rtol=0)


def test_toy_anisotropic_inputs_have_falling_variances_of_mean_one() -> None:
    inputs = toy_regression(regression(samples=20_000, inputs="anisotropic")).target.train.inputs
    variances = torch.linalg.eigvalsh(inputs.T @ inputs / len(inputs)).flip(0)
    expected = 1 / torch.arange(1, 13)
    torch.testing.assert_close(variances, expected / expected.mean(), atol=0, rtol=0.1)


def test_toy_data_depend_on_their_own_seed_alone() -> None:
    torch.manual_seed(1)
    first = toy_regression(regression())
    torch.manual_seed(2)
    again, other = toy_regression(regression()), toy_regression(regression(data_seed=1))
    assert torch.equal(first.target.train.inputs, again.target.train.inputs)
    assert torch.equal(first.teacher.linears[0].weight, again.teacher.linears[0].weight)
    assert not torch.equal(first.target.train.inputs, other.target.train.inputs)


def test_toy_held_out_rows_are_other_rows() -> None:
    task = toy_regression(regression())
    for domain in (task.source, task.target):
        assert torch.cdist(domain.train.inputs, domain.held_out.inputs).min() > 0.1


@pytest.mark.parametrize("options", [regression(), tutorial(held_out=32)])
def test_validation_examples_are_fresh_and_change_no_other_draw(options: ToyRegressionOptions) -> None:
    before, task = toy_regression(options), toy_regression(options.model_copy(update={"validation": 20}))
    for was, now in ((before.source, task.source), (before.target, task.target)):
        assert isinstance(was, Examples)
        assert isinstance(now, Examples)
        assert was.validation is None
        assert now.validation is not None
        assert len(now.validation.inputs) == len(now.validation.targets) == 20
        for one, other in zip((*was.train, *was.held_out), (*now.train, *now.held_out), strict=True):
            assert torch.equal(one, other)
        assert torch.cdist(now.validation.inputs, torch.cat([now.train.inputs, now.held_out.inputs])).min() > 0.1
    first = before.teacher.linears[0].weight
    assert torch.equal(first, task.teacher.linears[0].weight)


def test_toy_training_without_noise_reaches_the_oracle_of_every_rank_and_never_goes_below() -> None:
    task = toy_regression(regression(noise=0.0))
    ranks = [1, 2, 3, 5]
    adapters = [lora(rank=rank, alpha=float(rank), init="kaiming") for rank in ranks]
    measured = closing(train(task, *adapters), task, *adapters)
    base = task.loss(task.teacher(task.target.train.inputs), task.target.train.targets).mean().item()
    for rank, row in zip(ranks, measured, strict=True):
        expected = best_mse(*task.target.train, task.teacher.linears[0].weight, task.teacher.linears[0].bias, rank)
        assert row["eval/oracle_mse"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert row["eval/train_mse"] >= row["eval/oracle_mse"] - 1e-6 * base  # never below, to float32's rounding
        assert -1e-6 < row["eval/regret"] < 1e-3
        if rank >= 3:
            assert row["eval/train_mse"] < 1e-3 * base
        else:
            assert row["eval/oracle_mse"] > 0.01 * base


@pytest.mark.parametrize("bias", ["none", "all"])
def test_toy_oracle_of_every_init_is_that_of_the_set_that_it_can_reach(bias: str) -> None:
    task = toy_regression(regression())
    inits = ("kaiming", "normal", "orthogonal", "pissa", "milora", "olora", "init_b")
    adapters = [lora(rank=2, alpha=2.0, init=init, bias=bias) for init in inits]
    for row in closing(train(task, *adapters), task, *adapters):
        assert -1e-5 < row["eval/regret"] < 0.01


def test_toy_oracle_of_a_moved_base_is_another() -> None:
    task = toy_regression(regression())
    adapters = [lora(rank=2, init=init) for init in ("kaiming", "pissa", "milora")]
    floors = {row["eval/oracle_mse"] for row in closing(train(task, *adapters, steps=1), task, *adapters)}
    assert len(floors) == 3


def test_toy_oracle_of_a_trained_bias_is_lower() -> None:
    task = toy_regression(regression(data_seed=3))
    frozen, free = (
        closing(train(task, lora(bias=bias), steps=1), task, lora(bias=bias))[0] for bias in ("none", "all")
    )
    assert free["eval/oracle_mse"] < frozen["eval/oracle_mse"]


def test_toy_regret_is_one_for_the_base_and_zero_for_full_fine_tuning() -> None:
    task = toy_regression(regression())
    [row] = task.closing(fold_none(task.base(), 1), [NONE])
    assert math.isnan(row["eval/regret"])  # of rank 0 the base is the best there is
    assert row["eval/oracle_mse"] == pytest.approx(row["eval/train_mse"], rel=1e-6)
    untrained = attach(task.base(), lora())
    assert task.closing(untrained, [lora()])[0]["eval/regret"] == pytest.approx(1, abs=1e-6)
    full = fold_full(task.base())
    settings = [optimizer(name="adam", lr=0.03, schedule="cosine")]
    run(full, task, task.target, settings, training(steps=600, batch_size=64))
    assert abs(task.closing(full, [FULL])[0]["eval/regret"]) < 1e-4


def test_toy_rank_above_the_planted_one_fits_the_noise() -> None:
    """So a training error is compared with the oracle on the same sample, never with the noise's variance."""
    task = toy_regression(regression(noise=0.5))
    [linear] = task.teacher.linears
    floors = [best_mse(*task.target.train, linear.weight, linear.bias, rank) for rank in (3, 5, 8)]
    assert floors[0] > 1.05 * floors[1] > 1.05 * floors[2]
    adapters = [lora(rank=3), lora(rank=8)]
    done = train(task, *adapters)
    held_out = [row["eval/loss"] for row in evaluate(done.folded, task, task.target)]
    assert held_out[1] > held_out[0]
    assert set(population_risks(torch.zeros(8, 12), torch.eye(12), 0.5)) == {0.25}


def test_toy_closing_figures_ignore_dropout() -> None:
    task, adapter = toy_regression(regression()), lora(dropout=0.5)
    done = train(task, adapter, steps=50)
    first, second = closing(done, task, adapter), closing(done, task, adapter)
    assert first == second
    merged = done.folded.merged(0)
    expected = task.loss(merged(task.target.train.inputs), task.target.train.targets).mean().item()
    assert first[0]["eval/train_mse"] == pytest.approx(expected, rel=1e-5)


def test_toy_hidden_layers_have_no_oracle() -> None:
    task = toy_regression(regression(hidden=(10,)))
    assert task.closing(attach(task.base(), lora(rank=2)), [lora(rank=2)]) == [{}]
    source = evaluate(fold_none(task.base(), 1), task, task.source)[0]["eval/loss"]
    target = evaluate(fold_none(task.base(), 1), task, task.target)[0]["eval/loss"]
    assert source == pytest.approx(0.01, rel=0.3)  # the noise's variance
    assert target > 2 * source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift_rank": 9}, "shift_rank=9 is above 8"),
        ({"hidden": (2,)}, "shift_rank=3 is above 2"),
        ({"data": "tutorial"}, "data=tutorial has in_features=64, out_features=10"),
    ],
)
def test_toy_shift_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regression(**changes)


def test_toy_dora_has_a_training_error_and_no_oracle() -> None:
    task, adapter = toy_regression(regression()), lora(rank=2, dora=True)
    [figures] = task.closing(attach(task.base(), adapter), [adapter])
    assert list(figures) == ["eval/train_mse"]
