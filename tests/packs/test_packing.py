"""A trial's result is the same bits alone and in any pack: the claim on which every sweep rests.

Trials share a pack when they have one rank bucket, one bias mode, and all or none of them DoRA and dropout;
everything else differs here. Bits are equal where MKL has its strict AVX-512 kernels, on Intel; elsewhere float32 sums are
taken in another order, which over these few steps leaves the tolerance below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sweep.adapters.fold import export, fold, fold_none, linear_layers
from sweep.adapters.options import AdapterOptions
from sweep.adapters.rank import bucket, widest
from sweep.adapters.targets import select
from sweep.models.model import Model
from sweep.packs.base import base_weights
from sweep.registry import INITS
from sweep.tasks.task import Task
from sweep.training.evaluate import evaluate, evaluate_both
from sweep.training.options import OptimizerOptions, TrainingOptions
from tests.support.builders import (
    EXACT,
    FULL,
    NOWHERE,
    TOLERANCE,
    digits,
    lora,
    optimizer,
    padded_rank,
    regression,
    run,
    text,
    training,
)

TASKS = {
    "regression": regression(hidden=(20,)),
    "linear": regression(),
    "mnist": digits(validation=300),
    "transformer": text(),
}


@dataclass(frozen=True)
class One:
    """A trial, and the layers that it adapts."""

    adapter: AdapterOptions
    optimizer: OptimizerOptions
    seed: int


@dataclass(frozen=True)
class Left:
    """Everything that a trial leaves: its rows, its trained numbers, its closing figures."""

    rows: dict[int, dict[str, float]]
    tensors: dict[str, Tensor]
    closing: dict[str, float]
    diverged_at: int | None


@cache
def prepared(name: str) -> tuple[Task, Model]:
    task = TASKS[name].build(NOWHERE)
    if (model := task.base()) is None:
        model = task.new_model(torch.Generator().manual_seed(0))
        for parameter in model.parameters():
            if parameter.ndim == 2 and name == "transformer":
                parameter.data.mul_(5)  # an untrained decoder is nearly constant
    return task, model.requires_grad_(False)


def train(name: str, trials: Sequence[One], how: TrainingOptions, task_and_model: Any = None) -> list[Left]:
    task, model = task_and_model or prepared(name)
    adapters = [trial.adapter for trial in trials]
    names = list(linear_layers(model))
    targets = [select(adapter, names, model.presets) if adapter.kind == "lora" else [] for adapter in adapters]
    seeds = [trial.seed for trial in trials]
    folded = fold(model, adapters, targets, seeds, padded_rank(adapters), base_weights(model, task))

    done = run(
        folded,
        task,
        task.target,
        [trial.optimizer for trial in trials],
        how,
        seeds,
        evaluate=lambda _: evaluate_both(folded, task),
    )
    closing = task.closing(folded, adapters)
    return [
        Left(done.rows[trial], export(folded, trial), closing[trial], done.trained.diverged_at[trial])
        for trial in range(len(trials))
    ]


def assert_same(first: Left, second: Left) -> None:
    assert first.rows.keys() == second.rows.keys()
    assert first.diverged_at == second.diverged_at
    if EXACT:
        assert first.rows == second.rows
        assert repr(first.closing) == repr(second.closing)  # NaN is NaN
    for step, row in first.rows.items():
        assert row == pytest.approx(second.rows[step], rel=TOLERANCE, abs=TOLERANCE)
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        torch.testing.assert_close(tensor, second.tensors[name], atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True)


def assert_packed_is_alone(name: str, trials: Sequence[One], how: TrainingOptions, prepared: Any = None) -> None:
    together = train(name, trials, how, prepared)
    alone = [train(name, [trial], how, prepared)[0] for trial in trials]
    for own, packed in zip(alone, together, strict=True):
        assert_same(own, packed)
    mixed = [*reversed(range(len(trials))), 0, len(trials) // 2][1:]
    for position, packed in zip(mixed, train(name, [trials[i] for i in mixed], how, prepared), strict=True):
        assert_same(alone[position], packed)
    losses = {tuple(row["train/loss"] for row in left.rows.values() if "train/loss" in row) for left in alone}
    assert len(losses) == len(trials)  # no two trials are the same, so a mix-up would show


TARGETS = {
    "linear": ["all_linear"],
    "regression": ["all_linear", ["layers.0"], ["layers.1"]],
    "mnist": ["all_linear", ["layers.1"], ["layers.2"], ["layers.0", "layers.2"]],
    "transformer": ["all_linear", "qv", "mlp", ["head"], r"blocks\.1\..*"],
    "causal_lm": ["all_linear", "attention", "mlp", ["lm_head"], r".*\.1\..*"],
}


SOME = r".*(0|v_proj|up_proj|c_proj|fc1)"  # of the layers that a preset or an expression targets in any model here


def grid(name: str, rank: int, bias: str, dropout: float, optimizer_name: str, dora: bool = False) -> list[One]:
    """Every initialisation once, with everything else that may differ within a pack taken in turn."""
    needs_even_rank = {init: INITS.load(init).even_rank for init in INITS.names}
    inits = [init for init in sorted(INITS.names) if rank % 2 == 0 or not needs_even_rank[init]]
    targets = TARGETS[name]
    trials = []
    for number, init in enumerate(inits):
        lower = max(bucket(rank) // 2 + 1, 1)
        own_rank = lower if number % 3 == 1 and not needs_even_rank[init] else rank
        assert bucket(own_rank) == bucket(rank)
        adapter = lora(
            init=init,
            dora=dora,
            rank=own_rank,
            alpha=[8.0, 1.0, 16.0][number % 3],
            bias=bias,
            dropout=dropout * (1 + number % 2),
            targets=targets[number % len(targets)],
            scaling=["alpha/rank", "alpha/sqrt_rank", "alpha"][number % 3],
        )
        if number % 4 == 3:  # some layers have a smaller rank, or all the others have
            some = SOME if isinstance(adapter.targets, str) else ".*"
            smaller = 2 if needs_even_rank[init] else 1
            own_ranks = (own_rank, smaller) if number % 8 == 3 else (smaller, own_rank)
            changes = {"rank": own_ranks[0], "rank_pattern": {some: own_ranks[1]}, "alpha_pattern": {some: 3.0}}
            adapter = adapter.model_copy(update=changes)
            assert bucket(widest(adapter)) == bucket(rank)
        scale = 1e-4 if init == "both_random" else 1.0  # its start is far off; a small rate keeps it finite
        setting = optimizer(
            name=optimizer_name,
            lr=[1e-2, 3e-3, 1e-3][number % 3] * scale,
            weight_decay=[0.0, 0.1][number % 2],
            clip_norm=[None, 0.5, 2.0][number % 3],
            schedule=["constant", "linear", "cosine"][number % 3],
            warmup_steps=number % 4,
            lr_ratio=[1.0, 4.0][number % 5 // 3],
            momentum=0.9 if optimizer_name == "sgd" else 0.0,
        )
        trials.append(One(adapter, setting, seed=number % 3))
    return trials


HOW = training(steps=5, batch_size=6, eval_every=2)


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("name", TASKS)
def test_packed_is_alone_for_every_initialisation_and_setting(name: str, rank: int) -> None:
    assert_packed_is_alone(name, grid(name, rank, "none", 0.0, "adamw"), HOW)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("name", ["linear", "regression", "mnist"])
def test_packed_is_alone_with_trained_biases(name: str, bias: str) -> None:
    assert_packed_is_alone(name, grid(name, 4, bias, 0.0, "adam"), HOW)


@pytest.mark.parametrize("name", ["regression", "transformer"])
def test_packed_is_alone_with_dropout(name: str) -> None:
    assert_packed_is_alone(name, grid(name, 4, "none", 0.2, "adamw"), HOW)


@pytest.mark.parametrize(("rank", "bias", "dropout"), [(1, "none", 0.0), (4, "all", 0.0), (4, "none", 0.2)])
@pytest.mark.parametrize("name", ["regression", "mnist", pytest.param("transformer", marks=pytest.mark.slow)])
def test_packed_is_alone_with_dora(name: str, rank: int, bias: str, dropout: float) -> None:
    assert_packed_is_alone(name, grid(name, rank, bias, dropout, "adamw", dora=True), HOW)


@pytest.mark.parametrize("name", ["regression", "transformer"])
def test_packed_is_alone_under_sgd_with_accumulation(name: str) -> None:
    how = training(steps=4, batch_size=3, accumulation=2, eval_every=2)
    assert_packed_is_alone(name, grid(name, 4, "none", 0.0, "sgd"), how)


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "dora"), [(0.0, False), (0.2, False), (0.2, True)])
def test_packed_is_alone_with_and_without_checkpointing(dropout: float, dora: bool) -> None:
    trials = grid("transformer", 4, "none", dropout, "adamw", dora)
    plain, checkpointed = HOW, HOW.model_copy(update={"checkpointing": True})
    kept = train("transformer", trials, plain)
    for trial, with_all, again in zip(trials, kept, train("transformer", trials, checkpointed), strict=True):
        assert_same(with_all, again)
        assert_same(with_all, train("transformer", [trial], checkpointed)[0])
    whole = [One(FULL, optimizer(), seed=1)]
    assert_same(train("transformer", whole, plain)[0], train("transformer", whole, checkpointed)[0])


def test_packed_is_alone_beside_trials_that_diverge() -> None:
    trials = grid("mnist", 4, "none", 0.0, "sgd")[1:5]
    wild = [One(lora(init="pissa"), optimizer(name="sgd", lr=lr, momentum=0.9), seed=7) for lr in (1e30, 1e300)]
    how = training(steps=8, batch_size=6, eval_every=2)
    together = train("mnist", [wild[0], *trials, wild[1]], how)
    assert together[0].diverged_at is not None
    assert together[-1].diverged_at is not None
    for trial, packed in zip(trials, together[1:-1], strict=True):
        assert_same(train("mnist", [trial], how)[0], packed)


@pytest.mark.parametrize("name", ["linear", "mnist", "transformer"])
def test_packed_untouched_bases_are_like_one(name: str) -> None:
    """Without an adapter nothing is trained; the evaluation of three is that of one."""
    task, model = prepared(name)
    three, one = (evaluate(fold_none(model, n), task, task.target) for n in (3, 1))
    assert three == one * 3 if EXACT else three == [pytest.approx(one[0], rel=TOLERANCE)] * 3


def test_packed_full_fine_tuning_does_the_same_twice() -> None:
    trial = One(FULL, optimizer(weight_decay=0.1, clip_norm=1.0), seed=1)
    assert_same(train("mnist", [trial], HOW)[0], train("mnist", [trial], HOW)[0])


@pytest.mark.parametrize(
    ("name", "config", "batch_size"),
    [
        ("mnist", digits(hidden=(1000, 2000), validation=300), 32),
        ("transformer", text(width=128, heads=4, hidden=344, context=64, eval_windows=8), 16),
    ],
)
def test_packed_is_alone_at_the_sizes_of_the_default_tasks(name: str, config: Any, batch_size: int) -> None:
    task = config.build(NOWHERE)
    model = task.new_model(torch.Generator().manual_seed(0)).requires_grad_(False)
    trials = grid(name, 8, "none", 0.0, "adamw")[3:6]
    trials = [
        One(trial.adapter.model_copy(update={"init": "kaiming"}), trial.optimizer, trial.seed) for trial in trials
    ]
    how = training(steps=2, batch_size=batch_size)
    assert_packed_is_alone(name, trials, how, (task, model))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_packed_is_alone_on_hugging_face_models(family: str, tmp_path: Path) -> None:
    hugging_face = pytest.importorskip("tests.support.hugging_face")
    task = hugging_face.causal_lm(family, tmp_path).build(tmp_path)
    assert_packed_is_alone("causal_lm", grid("causal_lm", 4, "none", 0.1, "adamw"), HOW, (task, task.base()))
