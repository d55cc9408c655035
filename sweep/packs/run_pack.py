"""Train one pack: attach its trials to the base, train them, and record what became of each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sweep.adapters.fold import Folded, fold
from sweep.adapters.peft import import_
from sweep.metrics import EXACT_MATCH
from sweep.packs.base import Base
from sweep.record import Record, Status
from sweep.resolve import ResolvedTrial
from sweep.tasks.task import Sample, Task, require_declared
from sweep.training.evaluate import evaluate_both
from sweep.training.loop import Callbacks, Row, Rows, Trained, train
from sweep.training.pruning import Pruning

START_TOLERANCE = 1e-3


def run_pack(
    trials: Sequence[ResolvedTrial],
    task: Task,
    base: Base,
    record_of: Callable[..., Record],
    on_rows: Callable[[int, Rows], None],
    on_step: Callable[[int], None],
) -> tuple[list[Record], Folded, list[list[Sample]]]:
    """Train trials together.

    Args:
        trials: what to train; they share all that a pack must share.
        task: their task.
        base: the model that they start from.
        record_of: makes the record of a trial from its status, notes and figures; see ``Store.record_of``.
        on_rows: receives each row of metrics, as ``training.loop.train`` gives them.
        on_step: called after each update.

    Returns:
        Their records, the trained model, and the samples of each trial.

    """
    folded = _fold(trials, base)
    last: list[Row] = [{} for _ in trials]

    def remember(step: int, rows: Rows) -> None:
        for position, row in enumerate(rows):
            last[position] |= row or {}
        on_rows(step, rows)

    start = [dict(base.metrics) for _ in trials] if folded.starts_at_base() else evaluate_both(folded, task)
    remember(0, start)
    trained = _train(folded, trials, task, base, remember, on_step)
    samples = task.samples(folded)
    closing = [
        figures | _exact_match(own)
        for figures, own in zip(task.closing(folded, [trial.adapter for trial in trials]), samples, strict=True)
    ]
    require_declared(task, (name for figures in closing for name in figures), "end")
    records = []
    for position, trial in enumerate(trials):
        status, figures, notes = _outcome(trained, position, trial, base.scores | last[position], closing[position])
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
    return records, folded, samples


def _train(
    folded: Folded,
    trials: Sequence[ResolvedTrial],
    task: Task,
    base: Base,
    on_rows: Callable[[int, Rows], None],
    on_step: Callable[[int], None],
) -> Trained:
    if not folded.parameters:
        never: list[int | None] = [None] * len(trials)
        return Trained([0] * len(trials), never, never, {"pack_size": len(trials)})
    settings, seeds = [trial.optimizer for trial in trials], [trial.seed for trial in trials]
    callbacks = Callbacks(lambda folded: evaluate_both(folded, task), on_rows, on_step, _pruning(trials, base))
    return train(folded, task, task.target, settings, trials[0].training, seeds, callbacks)


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
    if diverged_at is None and math.isfinite(result["eval/loss"]):
        return "finished", {"result": result}, ()
    message = f"the loss was NaN or infinite at step {diverged_at or steps}"
    return "diverged", {"error": {"type": "Diverged", "message": message, "traceback": ""}}, ()


def _pruning(trials: Sequence[ResolvedTrial], base: Base) -> Pruning | None:
    """How the pack is pruned, if it is to be."""
    factor, first = trials[0].config.pruning, trials[0].training.eval_every
    if factor is None or len(trials) == 1:
        return None
    assert first is not None, "checked in the configuration"

    cells = [replace(trial, seed=0).id for trial in trials]
    return Pruning(factor, first, cells, lambda positions: _fold([trials[position] for position in positions], base))


def _fold(trials: Sequence[ResolvedTrial], base: Base) -> Folded:
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
