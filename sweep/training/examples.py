"""The test examples of a task: which they are, and what each trial of a pack scored on each of them at its end.

Shapes: T trial, E example.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sweep.metrics import Metric, of_source, of_test
from sweep.scores import Domain as Name
from sweep.scores import Scores
from sweep.tasks.task import Batch, Domain, Task, clusters_of
from sweep.training.evaluate import Both, Measured, figures_of_both

Examples = Mapping[Name, Scores]
"""The test examples of both domains."""


def figures_of_test(task: Task, measured: Both) -> list[dict[str, float]]:
    """Metrics of each trial on the test examples, ``test/…`` and ``test/source_…``."""
    names = {one.name: of_test(one).name for metric in task.metrics for one in (metric, of_source(metric))}
    return [{names[name]: value for name, value in row.items()} for row in figures_of_both(task, *measured)]


def identify(task: Task) -> Examples:
    """The test examples of both domains, without anything that was scored on them."""
    return {"target": _identified(task, task.target), "source": _identified(task, task.source)}


def scores_of(task: Task, measured: Both, examples: Examples) -> list[Examples]:
    """What each trial scored on each of ``examples``, for every metric that is a mean over them."""
    target, source = (_sums(task, *both) for both in zip(measured, (_same, of_source), strict=True))
    return [
        {"target": replace(examples["target"], sums=here), "source": replace(examples["source"], sums=there)}
        for here, there in zip(target, source, strict=True)
    ]


def _same(metric: Metric) -> Metric:
    return metric


def _sums(task: Task, measured: Measured, named: Callable[[Metric], Metric]) -> list[dict[str, np.ndarray]]:
    """The sums (E,) of each trial by name."""
    means = [metric for metric in task.metrics if metric.kind == "mean" and metric.name in measured.values]
    sums = {}
    for metric in means:
        values = measured.values[metric.name]
        weighted = values.double() * measured.weights.double().to(values.device)
        sums[of_test(named(metric)).name] = weighted.float().cpu().numpy()
    trials = len(next(iter(measured.values.values())))
    return [{name: of_trials[trial] for name, of_trials in sums.items()} for trial in range(trials)]


def _identified(task: Task, domain: Domain) -> Scores:
    examples = domain.held_out
    return Scores(
        example=_fingerprints(examples),
        cluster=clusters_of(domain).numpy().astype(np.int32),
        weight=task.weights(examples.targets).float().cpu().numpy(),
    )


def _fingerprints(examples: Batch) -> np.ndarray:
    """A number (E,) of 64 bits for each example: of its content and, of equal ones, which of them it is."""
    met = Counter[bytes]()
    numbers = np.empty(len(examples.targets), np.uint64)
    for row, parts in enumerate(zip(*map(_bytes, examples), strict=True)):
        content = b"".join(part.tobytes() for part in parts)
        digest = hashlib.blake2b(content, digest_size=8, salt=met[content].to_bytes(8))
        numbers[row] = int.from_bytes(digest.digest())
        met[content] += 1
    return numbers


def _bytes(part: Tensor) -> np.ndarray:
    """The bytes (E, bytes) of each row of a tensor (E, …)."""
    return part.cpu().reshape(len(part), -1).contiguous().view(torch.uint8).numpy()
