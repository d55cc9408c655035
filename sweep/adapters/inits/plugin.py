"""The initialisation of a plug-in: each draw is checked, and none can touch what other trials share."""

from dataclasses import replace
from functools import cache
from importlib.util import find_spec, module_from_spec
from typing import Any

import torch
from torch import Generator, Tensor

from sweep.adapters.inits.init import BaseWeight, Draw, Init
from sweep.guard import guarded
from sweep.registry import INITS, Plugin
from sweep.rng import generator

START_TOLERANCE = 1e-5
"""Largest entry of BA, relative to that of |B||A|, that counts as zero: rounding in float32 leaves some 1e-7."""


@cache
def plugin_init(plugin: Plugin) -> Init:
    """The initialisation that ``plugin`` gives, checked. Raises PluginError where it cannot be imported or is not one."""
    with guarded(plugin, "importing"):
        init = INITS.load(plugin.name)
    if not isinstance(init, Init):
        raise plugin.error(f"is {type(init).__name__}, and must be an Init")
    return replace(init, draw=CheckedDraw(init, plugin))


class CheckedDraw:
    """``init.draw`` with every result checked and, once for each layer shape, the independence of trials."""

    def __init__(self, init: Init, plugin: Plugin):
        self._init, self._plugin = init, plugin
        self._checked: set[tuple[int, int]] = set()

    def __call__(self, base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
        """The factors of one trial. Raises PluginError with what is wrong with them."""
        shape = (base.out_features, base.in_features)
        if shape not in self._checked:
            self._check_independence(base, rank, scaling)
            self._checked.add(shape)
        return self._drawn(self._init.draw, base.separate, rank, scaling, rng)

    def _check_independence(self, base: BaseWeight, rank: int, scaling: float) -> None:
        """Two trials drawn one after the other must start as each does alone, in a module that is executed anew."""

        def drawn(draw: Draw, base: BaseWeight, trial: int) -> tuple[Tensor, Tensor]:
            return self._drawn(draw, base, rank, scaling, generator(trial, "check of independence"))

        shared = base.copy()
        together = [drawn(self._init.draw, shared, trial) for trial in (0, 1, 0)]
        alone = [drawn(self._anew(), base.copy(), trial) for trial in (0, 1, 0)]
        for ours, theirs in zip(together, alone, strict=True):
            if not all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True)):
                raise self._error(base, rank, "a trial starts elsewhere alone than beside other trials")

    def _anew(self) -> Draw:
        """``draw`` of the plug-in's module executed again, so that it has seen no trial."""
        with guarded(self._plugin, "executing its module a second time"):
            spec = find_spec(self._plugin.module)
            assert spec is not None
            assert spec.loader is not None
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            init: Init = getattr(module, self._plugin.place.partition(":")[2])
        return init.draw

    def _drawn(self, draw: Draw, base: BaseWeight, rank: int, scaling: float, rng: Generator) -> tuple[Tensor, Tensor]:
        weight = base.weight.clone()
        with guarded(self._plugin, self._doing(base, rank)):
            result: Any = draw(base, rank, scaling, rng)
        if not torch.equal(base.weight, weight):
            base.weight.copy_(weight)
            raise self._error(base, rank, "it writes into the base's weight")
        if fault := _fault(result, base, rank, starts_at_base=self._init.starts_at_base and not self._init.moves_base):
            raise self._error(base, rank, fault)
        lora_A, lora_B = result
        return lora_A.detach(), lora_B.detach()

    def _error(self, base: BaseWeight, rank: int, what: str) -> Exception:
        return self._plugin.error(f"{self._doing(base, rank)}: {what}")

    @staticmethod
    def _doing(base: BaseWeight, rank: int) -> str:
        return f"its draw for layer {base.name or '?'} ({base.out_features} × {base.in_features}) at rank {rank}"


def _fault(result: Any, base: BaseWeight, rank: int, starts_at_base: bool) -> str | None:
    """What is wrong with the factors that were drawn, or None."""
    is_pair = isinstance(result, tuple) and len(result) == 2 and all(isinstance(one, Tensor) for one in result)
    if not is_pair:
        return "must give the two tensors lora_A and lora_B"
    for name, factor, shape in zip(("lora_A", "lora_B"), result, _shapes(base, rank), strict=True):
        if tuple(factor.shape) != shape:
            return f"{name} has shape {tuple(factor.shape)}, and must have {shape}"
        if factor.dtype != torch.float32 or factor.device.type != "cpu":
            return f"{name} is {factor.dtype} on {factor.device}, and must be torch.float32 on cpu"
        if not factor.isfinite().all():
            return f"{name} holds NaN or infinity"
    lora_A, lora_B = (factor.detach().double() for factor in result)
    largest = (lora_B @ lora_A).abs().max()
    if starts_at_base and largest > START_TOLERANCE * (lora_B.abs() @ lora_A.abs()).max():
        return (
            "B·A is not zero, so trials do not start at the base; the Init must say moves_base=True "
            "or starts_at_base=False"
        )
    return None


def _shapes(base: BaseWeight, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rank, base.in_features), (base.out_features, rank)
