"""Train one pack: attach its trials to the base, train them, and record the outcome of each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sweep.adapters.fold import Folded, fold
from sweep.adapters.peft import import_
from sweep.metrics import EXACT_MATCH, KEPT_STEP, LOSS
from sweep.packs.base import Base
from sweep.record import Record, Status
from sweep.resolve import ResolvedTrial
from sweep.samples import Sample
from sweep.tasks.task import Task, require_declared
from sweep.training.evaluate import (
    Both,
    evaluate_both,
    figures_of_both,
    has_validation,
    measure_test,
    measure_validation,
)
from sweep.training.examples import Examples, figures_of_test, scores_of
from sweep.training.loop import Callbacks, Row, Rows, Trained, train
from sweep.training.pruning import Pruning

START_TOLERANCE = 1e-3


class Outcome(NamedTuple):
    """What a pack leaves: the record of each trial, the trained model, and what each trial wrote and scored.

    ``scores``, by position, are those of the finished trials.
    """

    records: list[Record]
    folded: Folded
    samples: list[list[Sample]]
    scores: dict[int, Examples]


def run_pack(
    trials: Sequence[ResolvedTrial],
    task: Task,
    base: Base,
    record_of: Callable[..., Record],
    on_rows: Callable[[int, Rows], None],
    on_step: Callable[[int], None],
) -> Outcome:
    """Train trials together.

    Args:
        trials: what to train; they share all that a pack must share.
        task: their task.
        base: the model that they start from.
        record_of: makes the record of a trial from its status, notes and figures; see ``Store.record_of``.
        on_rows: receives each row of metrics, as ``training.loop.train`` gives them.
        on_step: called after each update.

    """
    folded = fold_trials(trials, base)
    last: list[Row] = [{} for _ in trials]
    evaluated: list[dict[int, Row]] = [{} for _ in trials]

    def remember(step: int, rows: Rows) -> None:
        for position, row in enumerate(rows):
            last[position] |= row or {}
            if row and LOSS.name in row:
                evaluated[position][step] = dict(last[position])
        on_rows(step, rows)

    start = [dict(base.metrics) for _ in trials] if folded.starts_at_base() else evaluate_both(folded, task)
    remember(0, start)
    evaluate = _Evaluation(task)
    trained = _train(folded, trials, task, Callbacks(evaluate, remember, on_step, _pruning(trials, base)))
    for position, kept_at in enumerate(trained.kept_at):
        if kept_at is not None:
            last[position] = evaluated[position][kept_at] | {KEPT_STEP.name: kept_at}
    ended, tested = _test(folded, task, base, trained, evaluate.last)
    test_figures = dict(zip(ended, figures_of_test(task, tested), strict=True))
    scores = dict(zip(ended, scores_of(task, tested, base.examples), strict=True))
    samples = task.samples(folded)
    closing = [
        figures | _exact_match(own)
        for figures, own in zip(task.closing(folded, [trial.adapter for trial in trials]), samples, strict=True)
    ]
    require_declared(task, (name for figures in closing for name in figures), "end")
    records = []
    for position, trial in enumerate(trials):
        at_end = test_figures.get(position, {}) | closing[position]
        status, figures, notes = _outcome(trained, position, trial, base.figures | last[position], at_end)
        total = folded.base_params + folded.added_params(position)
        trainable = trained.trainable[position]
        params = {"trainable": trainable, "total": total, "trainable_ratio": trainable / total}
        notes = (*_start_note(start[position], base), *notes)
        if status == "finished":
            notes += _end_note(figures["result"]["eval/loss"], base)
            measured, left_out = trial.layer_metrics.measure(folded, position)
            figures["result"] |= measured
            notes += left_out
        perf = {**trained.perf, **trial.alone}
        records.append(record_of(trial, status=status, notes=notes, params=params, perf=perf, **figures))
    finished = {position: scores[position] for position, one in enumerate(records) if one.finished}
    return Outcome(records, folded, samples, finished)


class _Evaluation:
    """Evaluates trials while they train; ``last`` is what they scored the last time."""

    def __init__(self, task: Task):
        self._task = task
        self.last: Both | None = None

    def __call__(self, folded: Folded) -> list[Row]:
        self.last = measure_validation(folded, self._task)
        return figures_of_both(self._task, *self.last)


def _train(folded: Folded, trials: Sequence[ResolvedTrial], task: Task, callbacks: Callbacks) -> Trained:
    if not folded.parameters:
        never: list[int | None] = [None] * len(trials)
        return Trained([0] * len(trials), never, never, {"pack_size": len(trials)}, never)
    settings, seeds = [trial.optimizer for trial in trials], [trial.seed for trial in trials]
    return train(folded, task, task.target, settings, trials[0].training, seeds, callbacks)


def _test(folded: Folded, task: Task, base: Base, trained: Trained, last: Both | None) -> tuple[Sequence[int], Both]:
    """Those of the trials that were tested at their end, and what they scored.

    Without a validation they have just been, unless they went back: ``last`` is the evaluation after the last step.
    """
    if not folded.parameters:
        target, source = (of_base.select([0] * folded.trials) for of_base in base.tested)
        return range(folded.trials), (target, source)
    ended = [position for position, pruned_at in enumerate(trained.pruned_at) if pruned_at is None]
    all_diverged = all(trained.diverged_at[position] for position in ended)
    if last is None or all_diverged or has_validation(task) or any(trained.kept_at):
        return range(folded.trials), measure_test(folded, task)
    return ended, last


def _exact_match(samples: Sequence[Sample]) -> Row:
    """The share of the answers that are as expected; nothing where there are none."""
    if not samples:
        return {}
    return {EXACT_MATCH.name: sum(sample.answer == sample.expected for sample in samples) / len(samples)}


def _outcome(
    trained: Trained, position: int, trial: ResolvedTrial, last: dict[str, float], closing: dict[str, float]
) -> tuple[Status, dict[str, Any], tuple[str, ...]]:
    """The status of one trial, its result or its error, and a note."""
    steps = trial.training.steps
    diverged_at, pruned_at = trained.diverged_at[position], trained.pruned_at[position]
    if pruned_at and not diverged_at:
        return "pruned", {"result": last}, (f"pruned after step {pruned_at} of {steps}",)
    result = last | closing
    if diverged_at is None and math.isfinite(result["eval/loss"]) and math.isfinite(result["test/loss"]):
        return "finished", {"result": result}, ()
    message = f"the loss was NaN or infinite at step {diverged_at or steps}"
    return "diverged", {"error": {"type": "Diverged", "message": message, "traceback": ""}}, ()


def _pruning(trials: Sequence[ResolvedTrial], base: Base) -> Pruning | None:
    """How the pack is pruned, if at all."""
    factor, first = trials[0].config.pruning, trials[0].training.eval_every
    if factor is None or len(trials) == 1:
        return None
    assert first is not None, "checked in the configuration"

    cells = [replace(trial, seed=0).id for trial in trials]
    return Pruning(
        factor, first, cells, lambda positions: fold_trials([trials[position] for position in positions], base)
    )


def fold_trials(trials: Sequence[ResolvedTrial], base: Base) -> Folded:
    """The model of trials that share all that a pack must share, each at its start."""
    adapters, seeds = [trial.adapter for trial in trials], [trial.seed for trial in trials]
    targets = [trial.targets for trial in trials]
    folded = fold(base.model, adapters, targets, seeds, trials[0].padded_rank, base.weights, trials[0].saved)
    for position, trial in enumerate(trials):
        if trial.start:
            import_.start(folded, position, trial.start)
    return folded


def _start_note(start: dict[str, float], base: Base) -> tuple[str, ...]:
    loss, untouched = start["eval/loss"], base.metrics["eval/loss"]
    if abs(loss - untouched) <= START_TOLERANCE * max(1.0, abs(untouched)):
        return ()
    return (
        f"adapter start is not the base model: eval/loss {loss:.4g} before the first step, "
        f"{untouched:.4g} without the adapter",
    )


def _end_note(loss: float, base: Base) -> tuple[str, ...]:
    untouched = base.metrics["eval/loss"]
    if loss <= untouched + START_TOLERANCE * max(1.0, abs(untouched)):
        return ()
    return (f"worse than the untouched base: eval/loss {loss:.4g} after training, {untouched:.4g} before",)
