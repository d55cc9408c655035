"""What else was set in the cells of a comparison: everything that differs besides the factors asked about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.columns import KIND, SEED, TASK, is_factor
from analysis.statistics.levels import REFERENCES, UNSET, follows, is_reference, labels, level_text, ordered
from sweep.record import COMPARABLE

Cell = tuple[str, ...]
Settings = Mapping[str, Mapping[Cell, Mapping[str, str]]]
"""The level of each setting, by cell and seed."""

ENVIRONMENT = "environment."
BASE = ENVIRONMENT + "base"
OF_THE_BASE = ("task.", "training.precision")
"""Settings that choose the base by definition."""
INIT, PLUGIN_OF_INIT = "adapter.init", "adapter.plugin"
RANK_AND_ALPHA = (("adapter.rank", "adapter.alpha"), ("config.r", "config.lora_alpha"))
"""As we call them, and as PEFT does."""
MEANT_FOR_ONE = ("optimizer.momentum", "optimizer.betas", "optimizer.eps")
"""Settings that not every optimizer reads."""


@dataclass(frozen=True)
class Difference:
    """A setting in which two cells differ at a seed that both have, with the levels of each."""

    name: str
    cell: str
    baseline: str


@dataclass(frozen=True)
class Together:
    """Rank and alpha where one of them, ``asked``, is asked about and alpha = ratio · rank."""

    rank: str
    alpha: str
    asked: str
    ratio: float

    @property
    def follower(self) -> str:
        """The one that moves with the asked one."""
        return self.alpha if self.asked == self.rank else self.rank


def settings(trials: pd.DataFrame, factors: Sequence[str], ignored: Iterable[str]) -> Settings:
    """Every setting besides ``factors`` and those ``ignored`` in which trials of one seed differ."""
    apart = {*factors, SEED, *ignored}
    names = [name for name in trials.columns if is_factor(name) and name not in apart]
    names += [ENVIRONMENT + key for key in (*COMPARABLE, "base") if ENVIRONMENT + key in trials]
    several_kinds = KIND in trials and trials[KIND].nunique() > 1
    varying = [name for name in names if several_kinds or trials[name].nunique(dropna=False) > 1]
    return dict(_differing(trials, factors, varying)) if varying else {}


def _differing(
    trials: pd.DataFrame, factors: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[str, dict[Cell, dict[str, str]]]]:
    cells = list(zip(*(labels(trials, name) for name in factors), strict=True))
    seeds = labels(trials, SEED).to_list()
    for name in names:
        level = labels(trials, name) if is_factor(name) else trials[name].map(level_text)
        if follows(level, seeds):
            continue
        found: dict[Cell, dict[str, str]] = {}
        for cell, seed, text in dict.fromkeys(zip(cells, seeds, level, strict=True)):
            by_seed = found.setdefault(cell, {})
            by_seed[seed] = "+".join(ordered([*by_seed[seed].split("+"), text])) if seed in by_seed else text
        yield name, found


def differences(found: Settings, factors: Sequence[str], cell: Cell, baseline: Cell) -> list[Difference]:
    """What ``cell`` and ``baseline`` differ in besides what is asked and what follows from it by definition.

    They are compared at each seed that both have; where they share none, over all their seeds.
    """
    asked = [factor for factor, one, other in zip(factors, cell, baseline, strict=True) if one != other]
    differing = []
    for name, by_cell in found.items():
        left, right = by_cell.get(cell, {}), by_cell.get(baseline, {})
        shared = [seed for seed in left if seed in right]
        pairs = [(left[seed], right[seed]) for seed in shared] or [(_joined(left.values()), _joined(right.values()))]
        unequal = [pair for pair in pairs if pair[0] != pair[1] and not _by_definition(name, pair, asked)]
        if unequal and left and right:
            sides = (_joined(pair[side] for pair in unequal) for side in (0, 1))
            differing.append(Difference(name, *sides))
    return differing


def _joined(levels: Iterable[str]) -> str:
    return "+".join(ordered(levels))


def _by_definition(name: str, levels: tuple[str, str], asked: Sequence[str]) -> bool:
    """Whether a difference between ``levels`` of ``name`` follows from the factors ``asked``."""
    if name.startswith(ENVIRONMENT):
        return name == BASE and any(factor.startswith(OF_THE_BASE) for factor in asked)
    if any(level in REFERENCES for level in levels):
        return True
    if name.startswith("task.") and TASK in asked:
        return True
    if name == "data" and any(factor.startswith("task.") for factor in asked):
        return True
    if (name in MEANT_FOR_ONE and "optimizer.name" in asked) or (name == PLUGIN_OF_INIT and INIT in asked):
        return True
    group = name.split(".")[0]
    return UNSET in levels and any(
        factor in (KIND, TASK, "optimizer.name") and factor.split(".")[0] == group for factor in asked
    )


def together(trials: pd.DataFrame, factors: Sequence[str]) -> Together | None:
    """Rank and alpha where only one of them is asked about and alpha is the same multiple of rank in every trial."""
    for rank, alpha in RANK_AND_ALPHA:
        asked = [name for name in (rank, alpha) if name in factors]
        if len(asked) != 1 or not {rank, alpha} <= set(trials.columns):
            continue
        lora = trials[~is_reference(trials)]
        values = lora[[rank, alpha]].apply(pd.to_numeric, errors="coerce").dropna()
        if values.nunique().min() < 2:
            continue
        ratio = values[alpha] / values[rank]
        if ratio.max() - ratio.min() <= 1e-9 * ratio.max():
            return Together(rank, alpha, asked[0], float(ratio.iloc[0]))
    return None
