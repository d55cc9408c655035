"""The machine: its devices, cores, threads and memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sweep.errors import ConfigError

LARGE = 10**7
"""Parameters of a model whose products keep several threads busy."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def useful_threads(model: nn.Module, available: int) -> int:
    """How many of the ``available`` threads of a pack serve ``model``: a small one's products are faster on one."""
    large = sum(parameter.numel() for parameter in model.parameters()) >= LARGE
    return available if large else 1


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_of(name: str) -> torch.device:
    """The device that ``device=name`` means; ``auto`` is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(["device = 'cuda': torch finds no CUDA GPU here; use device=cpu or device=auto"])
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def available_memory(device: torch.device) -> int:
    """Bytes that are free on ``device``."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
