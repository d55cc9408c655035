"""Train one pack and say what became of each trial."""

import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sweep.adapters.fold import Folded, fold
from sweep.adapters.peft import import_
from sweep.packs.base import Base
from sweep.record import Status
from sweep.resolve import ResolvedTrial
from sweep.tasks.task import Task
from sweep.training.evaluate import evaluate_both
from sweep.training.loop import Rows, Trained, train
from sweep.training.pruning import Pruning

START_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Outcome:
    """What became of one trial; the fields are those of its record."""

    status: Status
    params: dict[str, float] = field(default_factory=dict)
    result: dict[str, float] = field(default_factory=dict)
    perf: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: dict[str, str] | None = None


def failed(error: BaseException) -> Outcome:
    """The outcome of a trial that raised ``error``."""
    trace = "".join(traceback.format_exception(error))
    return Outcome("failed", error={"type": type(error).__name__, "message": str(error), "traceback": trace})


def run_pack(
    trials: Sequence[ResolvedTrial],
    task: Task,
    base: Base,
    on_rows: Callable[[int, Rows], None],
    on_step: Callable[[int], None],
) -> tuple[list[Outcome], Folded]:
    """Train the trials of ``trials`` together on ``base``; return their outcomes and the trained model."""
    adapters = [trial.adapter for trial in trials]
    seeds = [trial.seed for trial in trials]
    training = trials[0].training
    folded = _fold(trials, base)
    last: Rows = [{} for _ in trials]

    def remember(step: int, rows: Rows) -> None:
        for position, row in enumerate(rows):
            last[position] |= row
        on_rows(step, rows)

    start = [dict(base.metrics) for _ in trials] if folded.starts_at_base() else evaluate_both(folded, task)
    remember(0, start)
    if folded.parameters:
        settings = [trial.optimizer for trial in trials]
        trained = train(
            folded,
            task,
            task.target,
            settings,
            training,
            seeds,
            evaluate=lambda folded: evaluate_both(folded, task),
            on_rows=remember,
            on_step=on_step,
            pruning=_pruning(trials, base),
        )
    else:
        trained = Trained([0] * len(trials), [None] * len(trials), [None] * len(trials), {"pack_size": len(trials)})
    closing = task.closing(folded, adapters)
    outcomes = []
    for position, (diverged_at, pruned_at) in enumerate(zip(trained.diverged_at, trained.pruned_at, strict=True)):
        params = _params(folded, position, trained.trainable[position])
        notes = _start_note(start[position], base)
        result = base.scores | last[position] | closing[position]
        if pruned_at and not diverged_at:
            notes += (f"pruned after step {pruned_at} of {training.steps}",)
            outcomes.append(Outcome("pruned", params, base.scores | last[position], trained.perf, notes))
            continue
        if diverged_at is None and not math.isfinite(result["eval/loss"]):
            diverged_at = training.steps
        if diverged_at is None:
            notes += _end_note(result["eval/loss"], base)
            outcomes.append(Outcome("finished", params, result, trained.perf, notes))
        else:
            message = f"the loss was NaN or infinite at step {diverged_at}"
            error = {"type": "Diverged", "message": message, "traceback": ""}
            outcomes.append(Outcome("diverged", params, {}, trained.perf, notes, error))
    return outcomes, folded


def _pruning(trials: Sequence[ResolvedTrial], base: Base) -> Pruning | None:
    """How the pack is pruned, if it is to be."""
    factor, first = trials[0].config.pruning, trials[0].training.eval_every
    if factor is None or len(trials) == 1:
        return None
    assert first is not None, "checked in the schema"

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


def _params(folded: Folded, position: int, trainable: int) -> dict[str, float]:
    total = folded.base_params + folded.added_params(position)
    return {"trainable": trainable, "total": total, "trainable_ratio": trainable / total}


def _start_note(start: dict[str, float], base: Base) -> tuple[str, ...]:
    loss, untouched = start["eval/loss"], base.metrics["eval/loss"]
    if abs(loss - untouched) <= START_TOLERANCE * max(1.0, abs(untouched)):
        return ()
    return (f"adapter start is not the base model: eval/loss {loss:.4g} before the first step, {untouched:.4g} without the adapter",)  # fmt: skip


def _end_note(loss: float, base: Base) -> tuple[str, ...]:
    untouched = base.metrics["eval/loss"]
    if loss <= untouched + START_TOLERANCE * max(1.0, abs(untouched)):
        return ()
    return (f"worse than the untouched base: eval/loss {loss:.4g} after training, {untouched:.4g} before",)
