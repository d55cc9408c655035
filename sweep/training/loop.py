"""The one training loop: a pack of trials, or a base on its own, for a fixed number of updates.

Shapes: T trial, N rows of one trial.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.adapters.fold import Folded, trainable
from sweep.rng import generator
from sweep.tasks.task import Batch, Domain, Task
from sweep.training import optimizer
from sweep.training.options import OptimizerOptions, TrainingOptions
from sweep.training.pruning import Pruning
from sweep.training.schedule import learning_rates
from sweep.training.speed import Stopwatch

Rows = list[dict[str, float]]


class NoGradientError(RuntimeError):
    """No trained parameter received a gradient: the adapter is cut off from the loss."""


@dataclass(frozen=True)
class Trained:
    """What the loop knows at its end: trained numbers, divergence, pruning and speed of each trial.

    ``diverged_at`` is the update whose loss was the first to be NaN or infinite, None for a healthy trial;
    ``pruned_at`` is the update after which a trial was stopped, None for one that was not. Where trials were
    pruned, the time of an update says nothing about a pack of ``pack_size`` and is left out.
    """

    trainable: list[int]
    diverged_at: list[int | None]
    pruned_at: list[int | None]
    perf: dict[str, float]


def train(
    folded: Folded,
    task: Task,
    domain: Domain,
    settings: Sequence[OptimizerOptions],
    training: TrainingOptions,
    seeds: Sequence[int],
    evaluate: Callable[[Folded], Rows] | None = None,
    on_rows: Callable[[int, Rows], None] = lambda step, rows: None,
    on_step: Callable[[int], None] = lambda step: None,
    pruning: Pruning | None = None,
) -> Trained:
    """Train every trial of ``folded`` on its own batches of ``domain``.

    Args:
        folded: the model; its trained parameters are updated in place.
        task: gives the loss of each row, which is averaged within a trial and never across trials.
        domain: what to train on.
        settings: the optimizer of each trial, of one kind.
        training: steps, batch size and intervals, the same for all.
        seeds: for the order of the data; trials with equal seeds see equal batches.
        evaluate: metrics of each trial of a model as it stands, taken every ``eval_every`` updates and after
            the last.
        on_rows: receives the update's number and a row of metrics for each trial; the row of a trial that
            has diverged or was pruned is empty.
        on_step: called after each update, for progress.
        pruning: which trials stop early, by their ``eval/loss``; None lets all go on.

    Raises:
        NoGradientError: after a backward pass no trained parameter has a gradient.

    """
    device = next(folded.model.parameters()).device
    folded.model.checkpointing = training.checkpointing
    folded.model.train()
    streams = {seed: domain.batches(generator(seed, "data"), training.batch_size) for seed in dict.fromkeys(seeds)}
    pack = _Pack(folded, range(folded.trials), settings, seeds, streams, training.steps)
    stopwatch, received = Stopwatch(device), dict.fromkeys(pack.rows.parameters, False)
    diverged_at: list[int | None] = [None] * folded.trials
    pruned_at: list[int | None] = [None] * folded.trials
    for step in range(1, training.steps + 1):
        stopwatch.start()
        loss_T = torch.zeros(len(pack.trials), device=device)
        for _ in range(training.accumulation):
            inputs, targets = pack.next_batch(device)
            part_T = task.loss(pack.folded.outputs(inputs, pack.sees), targets).view(len(pack.trials), -1).mean(1)
            part_T = part_T / training.accumulation
            if part_T.requires_grad:
                part_T.sum().backward()
            loss_T += part_T.detach()
        collected = pack.rows.collect()
        if not any(collected.values()):
            raise NoGradientError("no adapter parameter receives a gradient; is the adapter detached from the loss?")
        received |= collected
        pack.update(step, loss_T)
        stopwatch.stop()
        on_step(step)
        is_last = step == training.steps
        evaluates = evaluate is not None and (is_last or _is_due(step, training.eval_every))
        if evaluates or is_last or _is_due(step, training.log_every):
            metrics = [
                {"train/loss": loss, "train/lr": lr}
                for loss, lr in zip(loss_T.tolist(), pack.rates[step - 1, :, 0].tolist(), strict=True)
            ]
            if evaluates and evaluate:
                metrics = [row | extra for row, extra in zip(metrics, evaluate(pack.folded), strict=True)]
            rows: Rows = [{} for _ in range(folded.trials)]
            for trial, row, bad in zip(pack.trials, metrics, pack.first_bad.tolist(), strict=True):
                diverged_at[trial] = bad or None
                rows[trial] = {} if bad else row
            on_rows(step, rows)
            if all(diverged_at[trial] for trial in pack.trials):
                break
            if pruning and evaluates and not is_last and pruning.is_rung(step):
                losses = [rows[trial].get("eval/loss", math.nan) for trial in pack.trials]
                staying = pruning.staying(pack.trials, losses)
                for trial in set(pack.trials).difference(staying):
                    pruned_at[trial] = step
                pack.restore(folded)
                pack = pack.smaller(pruning, staying)
    pack.restore(folded)
    perf = stopwatch.perf(training.batch_size * training.accumulation, folded.trials)
    if any(pruned_at):
        del perf["step_ms"], perf["samples_per_second"]
    return Trained(trainable(folded, received), diverged_at, pruned_at, perf)


class _Pack:
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
        self._rates_there = self.rates.to(device) * optimizer.lr_ratios(self.rows, own)
        self._clip = optimizer.clip_norms(own, device)
        self._optimizer = optimizer.build(self.rows, own)
        self.first_bad = torch.zeros(folded.trials, dtype=torch.long, device=device)
        self._distinct = list(dict.fromkeys(seeds[trial] for trial in trials))
        self.sees = [self._distinct.index(seeds[trial]) for trial in trials]

    def next_batch(self, device: torch.device) -> Batch:
        """Inputs (D·N, …) of the D distinct seeds, each of which is in a trial's ``sees``; targets (T·N, …) of all."""
        drawn = [next(self._streams[seed]) for seed in self._distinct]
        targets = torch.stack([batch.targets for batch in drawn])[self.sees].flatten(0, 1)
        return Batch(torch.cat([batch.inputs for batch in drawn]), targets).to(device)

    def update(self, step: int, loss_T: Tensor) -> None:
        """Do update number ``step`` with the collected gradients, and notice losses that are not finite."""
        if self._clip is not None:
            self.rows.clip(self._clip)
        self._optimizer.step(self._rates_there[step - 1])
        self.first_bad = torch.where((self.first_bad == 0) & ~loss_T.isfinite(), step, self.first_bad)

    def smaller(self, pruning: Pruning, staying: Sequence[int]) -> "_Pack":
        """The trials ``staying``, which go on as if the others had never been there."""
        positions = [self.trials.index(trial) for trial in staying]
        folded = pruning.smaller(self.folded, self.trials, staying)
        pack = _Pack(folded, staying, self._settings, self._seeds, self._streams, self._steps)
        pack.rows.values.copy_(pack.rows.take(self.rows.values, self.rows, positions))
        self._optimizer.keep(pack.rows, positions)
        pack._optimizer, pack.first_bad = self._optimizer, self.first_bad[positions]
        return pack

    def restore(self, whole: Folded) -> None:
        """Put the trained numbers into the model that the loop began with."""
        if whole is not self.folded:
            for name, parameter in self.folded.parameters.items():
                whole.parameters[name].data[self.trials] = parameter.data


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
