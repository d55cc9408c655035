"""From a task's configuration to the task."""

from functools import cache
from pathlib import Path

from sweep import schema
from sweep.tasks.causal_lm import causal_lm
from sweep.tasks.mnist import mnist
from sweep.tasks.regression import toy_regression
from sweep.tasks.task import Task
from sweep.tasks.transformer import transformer


@cache
def build(config: schema.Task, cache_folder: Path) -> Task:
    """Read or draw the data of a task; the same configuration gives the same object again."""
    match config:
        case schema.ToyRegression():
            return toy_regression(config)
        case schema.Mnist():
            return mnist(config, cache_folder)
        case schema.Transformer():
            return transformer(config)
        case schema.CausalLM():
            return causal_lm(config)
