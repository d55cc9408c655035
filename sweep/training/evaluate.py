"""Measure every trial of a pack on the held-out rows of a domain."""

from collections import defaultdict

import torch
from torch import Tensor

from sweep.adapters.fold import Folded
from sweep.tasks.task import Domain, Task

POSITIONS_AT_ONCE = 256
"""Predictions of each trial in one piece of an evaluation. Bounds the memory; it must not depend on the pack,
because a matrix product of other sizes may take another path and differ in its last bits."""


@torch.no_grad()
def evaluate(folded: Folded, task: Task, domain: Domain, prefix: str = "eval/") -> list[dict[str, float]]:
    """Metrics of each trial on all held-out rows of ``domain``, such as ``{"eval/loss": 0.31}``.

    Each row is scored by itself and averaged at the end, so the values do not depend on the pack.
    """
    model, trials = folded.model, folded.trials
    device = next(model.parameters()).device
    held_out = domain.held_out
    means: dict[str, list[Tensor]] = defaultdict(list)
    counts: dict[str, list[Tensor]] = defaultdict(list)
    rows = max(1, POSITIONS_AT_ONCE // held_out.positions)
    was_training = model.training
    model.eval()
    for inputs, targets in zip(held_out.inputs.split(rows), held_out.targets.split(rows), strict=True):
        outputs = folded.outputs(inputs.to(device), sees=[0] * trials)
        scores = task.scores(outputs, targets.to(device).repeat(trials, *[1] * (targets.ndim - 1)))
        for collected, values in ((means, scores.means), (counts, scores.counts)):
            for name, value in values.items():
                collected[name].append(value.view(trials, -1))
    model.train(was_training)
    averaged = {name: torch.cat(parts, 1).double().mean(1).float().tolist() for name, parts in means.items()}
    summed = {name: torch.cat(parts, 1).sum(1).tolist() for name, parts in counts.items()}
    metrics = [{name: values[trial] for name, values in averaged.items()} for trial in range(trials)]
    for trial, own in enumerate(metrics):
        own |= task.derive(own) | {name: values[trial] for name, values in summed.items()}
    return [{prefix + name: value for name, value in own.items()} for own in metrics]


def evaluate_both(folded: Folded, task: Task) -> list[dict[str, float]]:
    """Metrics of each trial on the target domain, ``eval/…``, and on the source domain, ``eval/source_…``."""
    target = evaluate(folded, task, task.target)
    source = evaluate(folded, task, task.source, "eval/source_")
    return [here | there for here, there in zip(target, source, strict=True)]
