"""From a task's configuration to the task."""

from functools import cache
from pathlib import Path

from sweep.tasks.causal_lm.options import CausalLMOptions
from sweep.tasks.causal_lm.task import causal_lm
from sweep.tasks.mnist.options import MnistOptions
from sweep.tasks.mnist.task import mnist
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import Task
from sweep.tasks.toy_regression.options import ToyRegressionOptions
from sweep.tasks.toy_regression.task import toy_regression
from sweep.tasks.transformer.options import TransformerOptions
from sweep.tasks.transformer.task import transformer


@cache
def build(config: TaskOptions, cache_folder: Path) -> Task:
    """Read or draw the data of a task; the same configuration gives the same object again."""
    match config:
        case ToyRegressionOptions():
            return toy_regression(config)
        case MnistOptions():
            return mnist(config, cache_folder)
        case TransformerOptions():
            return transformer(config)
        case CausalLMOptions():
            return causal_lm(config, cache_folder)
        case _:
            raise AssertionError(f"no task has options of type {type(config).__name__}")
