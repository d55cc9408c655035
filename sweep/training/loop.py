"""The one training loop: a pack of trials, or a base on its own, for a fixed number of updates.

Shapes: T trial, N rows of one trial.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweep.adapters.fold import Folded, trainable
from sweep.metrics import LOSS, TRAIN_LOSS, TRAIN_LR
from sweep.rng import generator
from sweep.tasks.task import Batch, Domain, Task
from sweep.training import optimizer
from sweep.training.options import OptimizerOptions, TrainingOptions
from sweep.training.pruning import Pruning
from sweep.training.schedule import learning_rates
from sweep.training.speed import Stopwatch

Row = dict[str, float]
"""Metrics of one trial by their full names."""
Rows = Sequence[Row | None]
"""A row of each trial; None for one that has stopped, because it diverged or was pruned."""


class NoGradientError(RuntimeError):
    """No trained parameter received a gradient: the adapter is cut off from the loss."""


@dataclass(frozen=True)
class Callbacks:
    """What happens while the loop trains.

    ``evaluate`` gives the metrics of each trial of a model as it stands, every ``eval_every`` updates and after the
    last one. ``on_rows`` receives the update's number and a row for each trial, ``on_step`` the number of each update.
    ``pruning`` says which trials stop early, by their ``eval/loss``; with None all of them train to the end.
    """

    evaluate: Callable[[Folded], Sequence[Row]] | None = None
    on_rows: Callable[[int, Rows], None] = lambda step, rows: None
    on_step: Callable[[int], None] = lambda step: None
    pruning: Pruning | None = None


@dataclass(frozen=True)
class Trained:
    """What the loop knows at its end: trained numbers, divergence, pruning and speed of each trial.

    ``diverged_at`` is the update whose loss was the first to be NaN or infinite, None for a healthy trial;
    ``pruned_at`` is the update after which a trial was stopped, None for one that was not. Where trials were
    pruned, the time of an update says nothing about a pack of ``pack_size`` and is left out. ``kept_at`` is the update
    whose numbers a trial went back to, None for one that keeps its last ones.
    """

    trainable: list[int]
    diverged_at: list[int | None]
    pruned_at: list[int | None]
    perf: dict[str, float]
    kept_at: list[int | None]


def train(
    folded: Folded,
    task: Task,
    domain: Domain,
    settings: Sequence[OptimizerOptions],
    training: TrainingOptions,
    seeds: Sequence[int],
    callbacks: Callbacks = Callbacks(),
) -> Trained:
    """Train every trial of ``folded`` on its own batches of ``domain``.

    Args:
        folded: the model; its trained parameters are updated in place.
        task: gives the loss of each row, which is averaged within a trial and never across trials.
        domain: what to train on.
        settings: the optimizer of each trial, of one kind.
        training: steps, batch size and intervals, the same for all.
        seeds: for the order of the data; trials with equal seeds see equal batches.
        callbacks: evaluation, progress and pruning.

    Raises:
        NoGradientError: after a backward pass no trained parameter has a gradient.

    """
    device = next(folded.model.parameters()).device
    folded.model.checkpointing = training.checkpointing
    folded.model.train()
    streams = {seed: domain.batches(generator(seed, "data"), training.batch_size) for seed in dict.fromkeys(seeds)}
    active = _ActiveTrials(folded, range(folded.trials), settings, seeds, streams, training.steps)
    stopwatch, received = Stopwatch(device), dict.fromkeys(active.rows.parameters, False)
    stopped = _Stopped([None] * folded.trials, [None] * folded.trials)
    for step in range(1, training.steps + 1):
        stopwatch.start()
        loss_T = _backward(active, task, training, device)
        received |= _collect(active)
        active.update(step, loss_T)
        stopwatch.stop()
        callbacks.on_step(step)
        is_last = step == training.steps
        evaluates = callbacks.evaluate is not None and (is_last or _is_due(step, training.eval_every))
        if not (evaluates or is_last or _is_due(step, training.log_every)):
            continue
        rows = _rows(active, stopped, step, loss_T, callbacks.evaluate if evaluates else None)
        callbacks.on_rows(step, rows)
        if evaluates and training.keep == "best":
            active.keep_best(step, rows)
        if all(stopped.diverged_at[trial] for trial in active.trials):
            break
        if callbacks.pruning and evaluates and not is_last and callbacks.pruning.is_rung(step):
            active = _prune(active, stopped, step, rows, callbacks.pruning, folded)
    kept_at = active.go_back_to_best()
    active.restore(folded)
    perf = stopwatch.perf(training.batch_size * training.accumulation, folded.trials)
    if any(stopped.pruned_at):
        del perf["step_ms"], perf["samples_per_second"]
    return Trained(trainable(folded, received), stopped.diverged_at, stopped.pruned_at, perf, kept_at)


@dataclass(frozen=True)
class _Stopped:
    """The update at which each trial of the loop diverged or was pruned."""

    diverged_at: list[int | None]
    pruned_at: list[int | None]


def _backward(active: "_ActiveTrials", task: Task, training: TrainingOptions, device: torch.device) -> Tensor:
    """Run the batches of one update forwards and backwards.

    Returns each trial's loss (T,): the weighted mean over the rows of all its batches.
    """
    trials = len(active.trials)
    loss_T = torch.zeros(trials, device=device)
    batches = [active.next_batch(device) for _ in range(training.accumulation)]
    weights_T_N = [task.weights(batch.targets).view(trials, -1) for batch in batches]
    weight_T = torch.stack(weights_T_N).sum((0, 2)) / training.accumulation  # of one batch; rows of equal weight: N
    for (inputs, targets), weight_T_N in zip(batches, weights_T_N, strict=True):
        losses_T_N = task.loss(active.folded.outputs(inputs, active.sees), targets).view(trials, -1)
        part_T = (losses_T_N * weight_T_N).sum(1) / weight_T / training.accumulation
        if part_T.requires_grad:
            part_T.sum().backward()
        loss_T += part_T.detach()
    return loss_T


def _collect(active: "_ActiveTrials") -> dict[str, bool]:
    """Collect the gradients; returns which parameters had one."""
    collected = active.rows.collect()
    if not any(collected.values()):
        raise NoGradientError("no adapter parameter receives a gradient; is the adapter detached from the loss?")
    return collected


def _rows(
    active: "_ActiveTrials",
    stopped: _Stopped,
    step: int,
    loss_T: Tensor,
    evaluate: Callable[[Folded], Sequence[Row]] | None,
) -> list[Row | None]:
    """The row of every trial after update ``step``; notes in ``stopped`` which of them have diverged."""
    measured: list[Row] = [
        {TRAIN_LOSS.name: loss, TRAIN_LR.name: lr}
        for loss, lr in zip(loss_T.tolist(), active.rates[step - 1, :, 0].tolist(), strict=True)
    ]
    if evaluate:
        measured = [row | extra for row, extra in zip(measured, evaluate(active.folded), strict=True)]
    rows: list[Row | None] = [None] * len(stopped.diverged_at)
    for trial, row, diverged_at in zip(active.trials, measured, active.diverged_at.tolist(), strict=True):
        stopped.diverged_at[trial] = diverged_at or None
        rows[trial] = None if diverged_at else row
    return rows


def _prune(
    active: "_ActiveTrials", stopped: _Stopped, step: int, rows: Rows, pruning: Pruning, whole: Folded
) -> "_ActiveTrials":
    """Stop the worst trials after update ``step``; returns those that go on."""
    losses = [math.nan if (row := rows[trial]) is None else row[LOSS.name] for trial in active.trials]
    survivors = pruning.survivors(active.trials, losses)
    for trial in set(active.trials).difference(survivors):
        stopped.pruned_at[trial] = step
    active.restore(whole)
    return active.narrow(pruning, survivors)


@dataclass(frozen=True)
class _Best:
    """The update after which a trial's ``eval/loss`` was the lowest, and what it had trained (P,) by then."""

    step: int
    loss: float
    numbers: Tensor


class _ActiveTrials:
    """The trials that are still trained: ``trials`` are their positions among those that the loop began with."""

    def __init__(
        self,
        folded: Folded,
        trials: Sequence[int],
        settings: Sequence[OptimizerOptions],
        seeds: Sequence[int],
        streams: Mapping[int, Iterator[Batch]],
        steps: int,
    ):
        device = next(folded.model.parameters()).device
        self.folded, self.trials = folded, list(trials)
        self.rows = optimizer.TrialRows(folded.parameters, folded.trials)
        self._settings, self._seeds, self._streams, self._steps = settings, seeds, streams, steps
        own = [settings[trial] for trial in trials]
        self.rates = learning_rates(own, steps)
        self._rates_on_device = self.rates.to(device) * optimizer.lr_ratios(self.rows, own)
        self._clip = optimizer.clip_norms(own, device)
        self._optimizer = optimizer.build(self.rows, own)
        self.diverged_at = torch.zeros(folded.trials, dtype=torch.long, device=device)
        self._best: dict[int, _Best] = {}
        self._distinct = list(dict.fromkeys(seeds[trial] for trial in trials))
        self.sees = [self._distinct.index(seeds[trial]) for trial in trials]

    def next_batch(self, device: torch.device) -> Batch:
        """Inputs (D·N, …) of the D distinct seeds, each of which is in a trial's ``sees``; targets (T·N, …) of all."""
        drawn = [next(self._streams[seed]) for seed in self._distinct]
        targets = torch.stack([batch.targets for batch in drawn])[self.sees].flatten(0, 1)
        return Batch(torch.cat([batch.inputs for batch in drawn]), targets).to(device)

    def update(self, step: int, loss_T: Tensor) -> None:
        """Do update number ``step`` with the collected gradients; remember where a loss was the first not to be finite."""
        if self._clip is not None:
            self.rows.clip(self._clip)
        self._optimizer.step(self._rates_on_device[step - 1])
        self.diverged_at = torch.where((self.diverged_at == 0) & ~loss_T.isfinite(), step, self.diverged_at)

    def narrow(self, pruning: Pruning, survivors: Sequence[int]) -> "_ActiveTrials":
        """The trials ``survivors``, which continue as if the others had never been there."""
        positions = [self.trials.index(trial) for trial in survivors]
        folded = pruning.smaller(self.folded, self.trials, survivors)
        fewer = _ActiveTrials(folded, survivors, self._settings, self._seeds, self._streams, self._steps)
        fewer.rows.values.copy_(fewer.rows.select(self.rows.values, self.rows, positions))
        self._optimizer.narrow(fewer.rows, positions)
        fewer._optimizer, fewer.diverged_at = self._optimizer, self.diverged_at[positions]
        if self._best:
            fewer._best = self._best_of(survivors, fewer.rows, positions)
        return fewer

    def _best_of(
        self, survivors: Sequence[int], rows: optimizer.TrialRows, positions: Sequence[int]
    ) -> dict[int, _Best]:
        """What is kept of the trials ``survivors``, which were at ``positions`` and have ``rows`` now."""
        kept = self.rows.values.clone()
        for trial, best in self._best.items():
            kept[self.trials.index(trial)] = best.numbers
        numbers = dict(zip(survivors, rows.select(kept, self.rows, positions), strict=True))
        return {trial: replace(best, numbers=numbers[trial]) for trial, best in self._best.items() if trial in numbers}

    def keep_best(self, step: int, rows: Rows) -> None:
        """Keep a copy of the numbers of each trial whose evaluation after update ``step`` is its best so far."""
        for position, trial in enumerate(self.trials):
            row, lowest = rows[trial], self._best[trial].loss if trial in self._best else math.inf
            if row is not None and row[LOSS.name] < lowest:
                self._best[trial] = _Best(step, row[LOSS.name], self.rows.values[position].clone())

    def go_back_to_best(self) -> list[int | None]:
        """Put back the numbers that were kept; returns the update of each trial that has any."""
        kept_at: list[int | None] = [None] * len(self._seeds)
        for trial, best in self._best.items():
            self.rows.values[self.trials.index(trial)] = best.numbers
            kept_at[trial] = best.step
        return kept_at

    def restore(self, whole: Folded) -> None:
        """Put the trained numbers into the model that the loop began with."""
        if whole is not self.folded:
            for name, parameter in self.folded.parameters.items():
                whole.parameters[name].data[self.trials] = parameter.data


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
