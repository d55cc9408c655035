"""Measure every trial of a pack on the held-out rows of a domain."""

from collections import defaultdict

import torch
from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.metrics import of_source
from sweep.tasks.task import Domain, Task, require_declared

POSITIONS_AT_ONCE = 256
"""Positions of each trial in one batch of an evaluation. Bounds the memory; it must not depend on the pack,
because a matrix product of other sizes may take another path and differ in its last bits."""


@torch.no_grad()
def evaluate(folded: Folded, task: Task, domain: Domain) -> list[dict[str, float]]:
    """Metrics of each trial on all held-out rows of ``domain``, such as ``{"eval/loss": 0.31}``.

    Each row is scored by itself and averaged or summed at the end, so the values do not depend on the pack.
    Raises ValueError for a metric that the task does not declare.
    """
    trials, values = folded.trials, _scores(folded, task, domain)
    require_declared(task, values, "mean", "sum")
    summed = {metric.name for metric in task.metrics if metric.kind == "sum"}
    weights = task.weights(domain.held_out.targets).double().to(next(iter(values.values())).device)
    means = {
        name: ((rows.double() * weights).sum(1) / weights.sum()).float().tolist()
        for name, rows in values.items()
        if name not in summed
    }
    sums = {name: rows.sum(1).tolist() for name, rows in values.items() if name in summed}
    metrics = []
    for trial in range(trials):
        own = {name: of_trials[trial] for name, of_trials in means.items()}
        derived = task.derive(own)
        require_declared(task, derived, "mean")
        metrics.append(own | derived | {name: of_trials[trial] for name, of_trials in sums.items()})
    return metrics


def evaluate_both(folded: Folded, task: Task) -> list[dict[str, float]]:
    """Metrics of each trial on the target domain, ``eval/…``, and on the source domain, ``eval/source_…``."""
    names = {metric.name: of_source(metric).name for metric in task.metrics}
    target, source = evaluate(folded, task, task.target), evaluate(folded, task, task.source)
    return [
        here | {names[name]: value for name, value in there.items()} for here, there in zip(target, source, strict=True)
    ]


def _scores(folded: Folded, task: Task, domain: Domain) -> dict[str, Tensor]:
    """What the task scores, (T, rows) for the T trials and all held-out rows."""
    model, trials = folded.model, folded.trials
    device = next(model.parameters()).device
    inputs, targets = domain.held_out
    rows = max(1, POSITIONS_AT_ONCE // domain.positions)
    collected: dict[str, list[Tensor]] = defaultdict(list)
    was_training = model.training
    model.eval()
    for batch, expected in zip(inputs.split(rows), targets.split(rows), strict=True):
        outputs = folded.outputs(batch.to(device), sees=[0] * trials)
        scores = task.scores(outputs, expected.to(device).repeat(trials, *[1] * (expected.ndim - 1)))
        for name, value in scores.items():
            collected[name].append(value.view(trials, -1))
    model.train(was_training)
    return {name: torch.cat(parts, 1) for name, parts in collected.items()}
