"""Run a plug-in's code so that it changes no global state, and so that its errors carry its name."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from sweep.errors import ConfigError
from sweep.registry import Plugin


@contextmanager
def guarded(plugin: Plugin | None, doing: str) -> Iterator[None]:
    """Run the block, which calls ``plugin``; None stands for our own code, which is not checked.

    Raises PluginError where it raises, or leaves another global state, which is put back: the generators of Python,
    NumPy and torch (those of CUDA, too, once it is in use), torch's default type, its gradient mode and its number of threads. A ConfigError is passed on as it is.
    """
    if plugin is None:
        yield
        return
    with _unchanged(plugin, doing, every_state()):
        try:
            yield
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise plugin.error(f"{doing} failed", error) from error


@contextmanager
def blaming(plugin: Plugin | None, doing: str) -> Iterator[None]:
    """Run the block, which is ours and calls ``plugin`` among others: its errors are named, ours stay as they are.

    Raises PluginError as ``guarded``; Python's own generator is left out, because others use it meanwhile.
    """
    if plugin is None:
        yield
        return
    with _unchanged(plugin, doing, {name: state for name, state in every_state().items() if name != PYTHON}):
        try:
            yield
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            if not plugin.raised(error):
                raise
            raise plugin.error(f"{doing} failed", error) from error


State = tuple[Callable[[], Any], Callable[[Any], object]]
"""How a global state is read, and how it is set."""
PYTHON = "Python's global generator"


def every_state() -> dict[str, State]:
    """The global states that results may depend on, by name."""
    states: dict[str, State] = {
        "torch's global generator": (lambda: torch.get_rng_state().numpy().tobytes(), _set_torch),
        PYTHON: (random.getstate, random.setstate),
        "NumPy's global generator": (lambda: _plain(numpy.random.get_state()), numpy.random.set_state),
        "torch's default type": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    }
    if torch.cuda.is_initialized():
        states["CUDA's generators"] = (_cuda_generators, _set_cuda_generators)
    return states


@contextmanager
def _unchanged(plugin: Plugin, doing: str, states: dict[str, State]) -> Iterator[None]:
    before = {name: read() for name, (read, _) in states.items()}
    try:
        yield
    finally:
        changed = [name for name, (read, _) in states.items() if read() != before[name]]
        for name in changed:
            states[name][1](before[name])
    if changed:
        raise plugin.error(
            f"{doing} uses or changes {' and '.join(changed)}; random numbers come from the generator that is given"
        )


def _set_torch(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _cuda_generators() -> list[bytes]:
    return [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]


def _set_cuda_generators(states: list[bytes]) -> None:
    torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states])


def _plain(state: Any) -> tuple[Any, ...]:
    kind, keys, *rest = state
    return (kind, tuple(keys.tolist()), *rest)
