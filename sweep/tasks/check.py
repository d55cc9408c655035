"""Whether the task of a plug-in is what a task must be, before any of its trials train."""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweep.guard import guarded
from sweep.metrics import LOSS
from sweep.models.model import Model
from sweep.registry import Plugin
from sweep.rng import generator
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import Batch, Task

ROWS = 4
TOLERANCE = 1e-4
"""Largest relative difference that float32 leaves where the same row is computed in a batch of another size."""


def check_task(plugin: Plugin, options: TaskOptions, cache_folder: Path) -> None:
    """Make the task and try it on a few rows.

    Raises PluginError where it raises, is not a task, does not score each row, or a row depends on its neighbours; and
    ConfigError as the task itself does.
    """
    with guarded(plugin, "making the task"):
        task: Any = options.build(cache_folder)
    if not isinstance(task, Task):
        raise plugin.error(f"its make() gives {type(task).__name__}, and must give a Task")
    if LOSS not in task.metrics:
        raise plugin.error(f"its metrics lack {LOSS.name}")
    for name, domain in (("source", task.source), ("target", task.target)):
        with guarded(plugin, f"trying its {name} domain"):
            model: Any = task.base() or task.new_model(torch.Generator().manual_seed(0))
            [batch] = islice(domain.batches(generator(0, "check of the task"), ROWS), 1)
            fault = _fault(task, model, batch)
        if fault:
            raise plugin.error(f"on its {name} domain, {fault}")


@torch.no_grad()
def _fault(task: Task, model: Model, batch: Batch) -> str | None:
    """What is wrong with the task on a batch of ``ROWS`` rows, or None."""
    if not isinstance(model, Model):
        return f"its model is {type(model).__name__}, and must be a Model"
    if lacking := [name for name in Model.__annotations__ if not hasattr(model, name)]:
        return f"its model lacks {' and '.join(lacking)}, with which a Model names its parts"
    model.eval()
    together = _of_rows(task, model, batch)
    alone = [_of_rows(task, model, Batch(*(part[row : row + 1] for part in batch))) for row in range(ROWS)]
    for name, values in together.items():
        if tuple(values.shape) != (ROWS,):
            return f"{name} of {ROWS} rows has shape {tuple(values.shape)}, and must have ({ROWS},)"
        apart = torch.cat([each[name].flatten() for each in alone])
        if not torch.allclose(values.float(), apart.float(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            return f"{name} of a row depends on the other rows of its batch, and trials share a batch"
    return None


def _of_rows(task: Task, model: Model, batch: Batch) -> dict[str, Tensor]:
    outputs = model(batch.inputs)
    own = {"its loss": task.loss(outputs, batch.targets), "its weight": task.weights(batch.targets)}
    scores = task.scores(outputs, batch.targets)
    of_positions = {name: one.mean(1) for name, one in scores.items() if one.ndim == 2 == batch.targets.ndim}
    return {**own, **scores, **of_positions}
