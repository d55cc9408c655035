"""Successive halving inside a pack (Jamieson and Talwalkar 2016): the worst trials stop early."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from sweep.adapters.fold import Folded


@dataclass(frozen=True)
class Pruning:
    """At the rungs ``first``, ``first·factor``, ``first·factor²``, … updates one in ``factor`` cells continues.

    ``cells`` says for each trial which cell it belongs to. Replicates, which differ in nothing but the seed, are
    ranked by their mean and leave together, so that no cell is left with its luckiest seeds. ``refold`` folds some of
    the trials as they were before the first update.
    """

    factor: int
    first: int
    cells: Sequence[Hashable]
    refold: Callable[[Sequence[int]], Folded]

    def is_rung(self, step: int) -> bool:
        """Whether trials are compared after update ``step``."""
        rung = self.first
        while rung < step:
            rung *= self.factor
        return rung == step

    def survivors(self, alive: Sequence[int], losses: Sequence[float]) -> list[int]:
        """The survivors of the trials ``alive``: the ⌈cells / factor⌉ best cells by their mean loss.

        A loss that is NaN or infinite is the worst. Ties are decided by the trials' order.
        """
        of_cell: dict[Hashable, list[float]] = defaultdict(list)
        for trial, loss in zip(alive, losses, strict=True):
            of_cell[self.cells[trial]].append(loss)
        mean = {cell: fmean(own) for cell, own in of_cell.items()}
        ranked = sorted(mean, key=lambda cell: mean[cell] if math.isfinite(mean[cell]) else math.inf)
        best = set(ranked[: math.ceil(len(ranked) / self.factor)])
        return [trial for trial in alive if self.cells[trial] in best]

    def smaller(self, part: Folded, alive: Sequence[int], survivors: Sequence[int]) -> Folded:
        """The trials ``survivors`` of ``part``, which holds ``alive``: their dropout continues where it was.

        Their trained numbers are not copied; see ``training.optimizer.TrialRows.select``.
        """
        smaller = self.refold(survivors)
        rows = [alive.index(trial) for trial in survivors]
        for name, layer in smaller.layers.items():
            layer.dropout_rng = tuple(part.layers[name].dropout_rng[row] for row in rows)
        smaller.model.checkpointing = part.model.checkpointing
        smaller.model.train(part.model.training)
        return smaller
