"""The test examples of a task: which they are, and what each trial of a pack scored on each of them at its end.

Shapes: T trial, M row, S position, E example.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sweep.metrics import Metric, of_source, of_test
from sweep.scores import Domain as Name
from sweep.scores import Scores
from sweep.tasks.task import Batch, Division, Domain, Task, division_of
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
    (target, source) = (
        _sums(task, domain, of_domain, named)
        for domain, of_domain, named in zip((task.target, task.source), measured, (_same, of_source), strict=True)
    )
    return [
        {"target": replace(examples["target"], sums=here), "source": replace(examples["source"], sums=there)}
        for here, there in zip(target, source, strict=True)
    ]


def _same(metric: Metric) -> Metric:
    return metric


def _sums(
    task: Task, domain: Domain, measured: Measured, named: Callable[[Metric], Metric]
) -> list[dict[str, np.ndarray]]:
    """The sums (E,) of each trial by name."""
    means = [metric for metric in task.metrics if metric.kind == "mean" and metric.name in measured.values]
    spans = division_of(domain).spans
    sums = {}
    for metric in means:
        if spans is None:
            values = measured.values[metric.name]
            summed = values.double() * measured.weights.double().to(values.device)
        else:
            summed = _within(spans, measured.positions[metric.name])
        sums[of_test(named(metric)).name] = summed.float().cpu().numpy()
    trials = len(next(iter(measured.values.values())))
    return [{name: of_trials[trial] for name, of_trials in sums.items()} for trial in range(trials)]


def _within(spans: Tensor, values: Tensor) -> Tensor:
    """The sum (T, E) of ``values`` (T, M, S) within each of ``spans`` (E, 2)."""
    up_to = F.pad(values.double().flatten(1).cumsum(1), (1, 0))
    begins, ends = spans.to(values.device).T
    return up_to[:, ends] - up_to[:, begins]


def _identified(task: Task, domain: Domain) -> Scores:
    division, examples = division_of(domain), domain.held_out
    if division.spans is None:
        weight = task.weights(examples.targets)
    else:
        learnt = task.learnt(examples.targets)
        counted = torch.ones_like(examples.targets) if learnt is None else learnt
        [weight] = _within(division.spans, counted[None])
    return Scores(
        example=_fingerprints(_contents(examples, division)),
        cluster=division.cluster.numpy().astype(np.int32),
        weight=weight.float().cpu().numpy(),
    )


def _contents(examples: Batch, division: Division) -> Iterator[bytes]:
    """The inputs and targets of each example."""
    parts = [part.cpu().contiguous().numpy() for part in examples]
    if division.spans is None:
        yield from (b"".join(part.tobytes() for part in row) for row in zip(*parts, strict=True))
        return
    size = examples.targets.shape[1]
    for begin, end in division.spans.tolist():
        row, first = divmod(begin, size)
        yield b"".join(part[row, ..., first : first + end - begin].tobytes() for part in parts)


def _fingerprints(contents: Iterable[bytes]) -> np.ndarray:
    """A number (E,) of 64 bits for each example: of its content and, of equal ones, which of them it is."""
    met = Counter[bytes]()
    numbers = []
    for content in contents:
        digest = hashlib.blake2b(content, digest_size=8, salt=met[content].to_bytes(8))
        numbers.append(int.from_bytes(digest.digest()))
        met[content] += 1
    return np.array(numbers, np.uint64)
