"""The one training loop: a pack of trials, or a base on its own, for a fixed number of updates.

Shapes: T trial, N rows of one trial.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from sweep import schema
from sweep.adapters.fold import Folded, trainable
from sweep.rng import generator
from sweep.tasks.task import Batch, Domain, Task
from sweep.training import optimizer
from sweep.training.schedule import learning_rates
from sweep.training.speed import Stopwatch

Rows = list[dict[str, float]]


class NoGradientError(RuntimeError):
    """No trained parameter received a gradient: the adapter is cut off from the loss."""


@dataclass(frozen=True)
class Trained:
    """What the loop knows at its end: trained numbers, divergence and speed of each trial.

    ``diverged_at`` is the update whose loss was the first to be NaN or infinite, None for a healthy trial.
    """

    trainable: list[int]
    diverged_at: list[int | None]
    perf: dict[str, float]


def train(
    folded: Folded,
    task: Task,
    domain: Domain,
    settings: Sequence[schema.Optimizer],
    training: schema.Training,
    seeds: Sequence[int],
    evaluate: Callable[[], Rows] | None = None,
    on_rows: Callable[[int, Rows], None] = lambda step, rows: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Trained:
    """Train every trial of ``folded`` on its own batches of ``domain``.

    Args:
        folded: the model; its trained parameters are updated in place.
        task: gives the loss of each row, which is averaged within a trial and never across trials.
        domain: what to train on.
        settings: the optimizer of each trial, of one kind.
        training: steps, batch size and intervals, the same for all.
        seeds: for the order of the data; trials with equal seeds see equal batches.
        evaluate: metrics of each trial as the model stands, taken every ``eval_every`` updates and after the
            last.
        on_rows: receives the update's number and a row of metrics for each trial; the row of a trial that
            has diverged is empty.
        on_step: called after each update, for progress.

    Raises:
        NoGradientError: after a backward pass no trained parameter has a gradient.

    """
    device = next(folded.model.parameters()).device
    rows = optimizer.TrialRows(folded.parameters, folded.trials)
    rates = learning_rates(settings, training.steps)
    rates_there = rates.to(device) * optimizer.lr_ratios(rows, settings)
    clip = optimizer.clip_norms(settings, device)
    update = optimizer.build(rows, settings)
    sees, batches = _batches(domain, seeds, training.batch_size, device)
    first_bad = torch.zeros(folded.trials, dtype=torch.long, device=device)
    stopwatch, received = Stopwatch(device), dict.fromkeys(rows.parameters, False)
    folded.model.checkpointing = training.checkpointing
    folded.model.train()
    for step in range(1, training.steps + 1):
        stopwatch.start()
        loss_T = torch.zeros(folded.trials, device=device)
        for _ in range(training.accumulation):
            inputs, targets = next(batches)
            part_T = task.loss(folded.outputs(inputs, sees), targets).view(folded.trials, -1).mean(1)
            part_T = part_T / training.accumulation
            if part_T.requires_grad:
                part_T.sum().backward()
            loss_T += part_T.detach()
        received = rows.collect()
        if not any(received.values()):
            raise NoGradientError("no adapter parameter receives a gradient; is the adapter detached from the loss?")
        if clip is not None:
            rows.clip(clip)
        update.step(rates_there[step - 1])
        first_bad = torch.where((first_bad == 0) & ~loss_T.isfinite(), step, first_bad)
        stopwatch.stop()
        on_step(step)
        is_last = step == training.steps
        evaluates = evaluate is not None and (is_last or _is_due(step, training.eval_every))
        if evaluates or is_last or _is_due(step, training.log_every):
            metrics = [
                {"train/loss": loss, "train/lr": lr}
                for loss, lr in zip(loss_T.tolist(), rates[step - 1, :, 0].tolist(), strict=True)
            ]
            if evaluates and evaluate:
                metrics = [row | extra for row, extra in zip(metrics, evaluate(), strict=True)]
            bad = first_bad.tolist()
            on_rows(step, [{} if bad[trial] else row for trial, row in enumerate(metrics)])
            if all(bad):
                break
    return Trained(
        trainable(folded, received),
        [step or None for step in first_bad.tolist()],
        stopwatch.perf(training.batch_size * training.accumulation, folded.trials),
    )


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _batches(
    domain: Domain, seeds: Sequence[int], rows: int, device: torch.device
) -> tuple[list[int], Iterator[Batch]]:
    """Which distinct seed each trial has, and endless batches: inputs (D·N, …) of the D distinct seeds,
    targets (T·N, …) of all trials.
    """  # noqa: D205
    distinct = list(dict.fromkeys(seeds))
    sees = [distinct.index(seed) for seed in seeds]
    streams = [domain.batches(generator(seed, "data"), rows) for seed in distinct]

    def batches() -> Iterator[Batch]:
        while True:
            drawn = [next(stream) for stream in streams]
            targets = torch.stack([batch.targets for batch in drawn])[sees].flatten(0, 1)
            yield Batch(torch.cat([batch.inputs for batch in drawn]), targets).to(device)

    return sees, batches()
