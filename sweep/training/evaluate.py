"""Measure every trial of a pack on the examples of both domains that training never sees.

Shapes: T trial, N rows of all trials, M rows of one, S position.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.metrics import of_source
from sweep.tasks.task import Batch, Domain, Task, require_declared, validation_of

POSITIONS_AT_ONCE = 256
"""Positions of each trial in one batch of an evaluation. Bounds the memory; it must not depend on the pack,
because a matrix product of other sizes may take another path and differ in its last bits."""


@dataclass(frozen=True)
class Measured:
    """What the trials of a pack scored on the rows of one domain: ``values`` (T, M) by metric, ``weights`` (M,).

    ``positions`` (T, M, S) have the same of each position, of a task that scores them.
    """

    values: Mapping[str, Tensor]
    weights: Tensor
    positions: Mapping[str, Tensor]

    def select(self, trials: Sequence[int]) -> "Measured":
        """What these of the trials scored."""
        values, positions = (
            {name: of_trials[list(trials)] for name, of_trials in part.items()}
            for part in (self.values, self.positions)
        )
        return Measured(values, self.weights, positions)


Both = tuple[Measured, Measured]
"""What was measured on the target and on the source domain."""


def has_validation(task: Task) -> bool:
    """Whether a trial is evaluated on other examples while it trains than at its end."""
    return any(validation_of(domain) is not None for domain in (task.target, task.source))


def evaluate(folded: Folded, task: Task, domain: Domain) -> list[dict[str, float]]:
    """Metrics of each trial on ``domain`` while it trains, such as ``{"eval/loss": 0.31}``.

    On the validation examples, or on the test examples of a domain that has no others.
    Raises ValueError for a metric that the task does not declare.
    """
    return _figures(task, measure(folded, task, domain, _evaluated(domain)))


def evaluate_both(folded: Folded, task: Task) -> list[dict[str, float]]:
    """Metrics of each trial on the target domain, ``eval/…``, and on the source domain, ``eval/source_…``."""
    return figures_of_both(task, *measure_validation(folded, task))


def figures_of_both(task: Task, target: Measured, source: Measured) -> list[dict[str, float]]:
    """As ``evaluate_both``, of what was measured on the two domains."""
    names = {metric.name: of_source(metric).name for metric in task.metrics}
    return [
        here | {names[name]: value for name, value in there.items()}
        for here, there in zip(_figures(task, target), _figures(task, source), strict=True)
    ]


def measure_validation(folded: Folded, task: Task) -> Both:
    """What each trial scores on the examples of both domains that are evaluated while it trains."""
    return _measure_both(folded, task, _evaluated)


def measure_test(folded: Folded, task: Task) -> Both:
    """What each trial scores on the test examples of both domains."""
    return _measure_both(folded, task, lambda domain: domain.held_out)


def _measure_both(folded: Folded, task: Task, part: Callable[[Domain], Batch]) -> Both:
    target, source = (measure(folded, task, domain, part(domain)) for domain in (task.target, task.source))
    return target, source


@torch.no_grad()
def measure(folded: Folded, task: Task, domain: Domain, examples: Batch) -> Measured:
    """What each trial scores on each row of ``examples``, which are of ``domain``."""
    model, trials = folded.model, folded.trials
    device = next(model.parameters()).device
    rows = max(1, POSITIONS_AT_ONCE // domain.positions)
    rows_of, positions_of = defaultdict[str, list[Tensor]](list), defaultdict[str, list[Tensor]](list)
    was_training = model.training
    model.eval()
    for inputs, expected in zip(examples.inputs.split(rows), examples.targets.split(rows), strict=True):
        outputs = folded.outputs(inputs.to(device), sees=[0] * trials)
        targets = expected.to(device).repeat(trials, *[1] * (expected.ndim - 1))
        for name, value in task.scores(outputs, targets).items():
            if value.ndim > 1:
                positions_of[name].append(value.view(trials, *expected.shape))
                value = _means(value, task.learnt(targets))
            rows_of[name].append(value.view(trials, -1))
    model.train(was_training)
    values, positions = (
        {name: torch.cat(parts, 1) for name, parts in found.items()} for found in (rows_of, positions_of)
    )
    return Measured(values, task.weights(examples.targets), positions)


def _means(values: Tensor, learnt: Tensor | None) -> Tensor:
    """The mean (N,) of ``values`` (N, S) over the positions of each row that are ``learnt``; they are 0 at the others."""
    return values.mean(1) if learnt is None else values.sum(1) / learnt.sum(1).clamp(min=1)


def _evaluated(domain: Domain) -> Batch:
    validation = validation_of(domain)
    return domain.held_out if validation is None else validation


def _figures(task: Task, measured: Measured) -> list[dict[str, float]]:
    """The metrics of each trial over all examples.

    Each example is scored by itself and averaged or summed at the end, so the values do not depend on the pack.
    """
    require_declared(task, measured.values, "mean", "sum")
    summed = {metric.name for metric in task.metrics if metric.kind == "sum"}
    by_trial: list[dict[str, float]] = []
    means, sums = {}, {}
    for name, values in measured.values.items():
        if name in summed:
            sums[name] = values.sum(1).tolist()
        else:
            weights = measured.weights.double().to(values.device)
            means[name] = ((values.double() * weights).sum(1) / weights.sum()).float().tolist()
    for trial in range(len(next(iter(measured.values.values())))):
        own = {name: of_trials[trial] for name, of_trials in means.items()}
        derived = task.derive(own)
        require_declared(task, derived, "mean")
        by_trial.append(own | derived | {name: of_trials[trial] for name, of_trials in sums.items()})
    return by_trial
