"""Modules on PyTorch's meta device: their shapes without their numbers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def without_numbers() -> Iterator[None]:
    """Inside the block, modules are made on the meta device, and what initialises them does nothing.

    PyTorch would import its compiler to draw numbers that are not there, which takes a second.
    """
    with torch.device("meta"), _Uninitialised():
        yield


class _Uninitialised(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor of a function of ``torch.nn.init`` as it is, and call any other function."""
        others = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else others["tensor"]
        return function(*args, **others)
