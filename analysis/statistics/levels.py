"""Levels: the values of a factor as short text, in an order that a reader expects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.columns import FACTOR_GROUPS, KIND, SEED, is_factor
from analysis.errors import BadRequestError, unknown

REFERENCES = ("full", "none")
UNSET = "unset"


def level_text(value: object) -> str:
    """One value as a reader writes it: 8.0 is ``8``, 0.00001 is ``1e-5``, a missing one is ``unset``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNSET
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return str(value)


def own_level(factor: str, text: str) -> str:
    """The level of a trial that is set to ``text``: ``bias none`` where ``none`` would be taken for the untouched base."""
    return f"{factor.rpartition('.')[2]} {text}" if text in REFERENCES and factor != KIND else text


def short(text: str, most: int = 22) -> str:
    """``text`` for a place with little room: its beginning and its end, where names of a family differ."""
    if len(text) <= most:
        return text
    return f"{text[: most - most // 2 - 1]}…{text[-(most // 2) :]}"


def labels(trials: pd.DataFrame, factor: str) -> pd.Series:
    """The level of ``factor`` in each trial, as text.

    Full fine-tuning and the untouched base have no rank, init or targets: under every ``adapter.*`` factor
    they are the levels ``full`` and ``none``. The untouched base is not trained either, so that ``none`` is
    also its level of every ``optimizer.*`` and ``training.*`` factor. A trial that is set to one of these words itself
    has another level (``own_level``). Raises BadRequestError for an unknown factor.
    """
    if factor not in trials or not is_factor(factor):
        raise unknown("factor", factor, [name for name in trials.columns if is_factor(name)])
    codes, values = pd.factorize(trials[factor])
    names = np.array([*(own_level(factor, level_text(value)) for value in values), UNSET], dtype=object)
    text = names[codes]  # the code of a missing value is −1
    if is_adapter(factor) and KIND in trials:
        text = np.where(is_reference(trials), trials[KIND], text)
    elif factor.startswith(("optimizer.", "training.")) and KIND in trials:
        text = np.where(trials[KIND] == "none", "none", text)
    return pd.Series(text, trials.index, dtype=object, name=factor)


def is_adapter(factor: str) -> bool:
    """Whether ``factor`` is a setting of the adapter, which reference trials do not have."""
    return factor.startswith("adapter.") and factor != KIND


def is_reference(trials: pd.DataFrame) -> pd.Series:
    """Which trials are full fine-tuning or the untouched base, the baselines of every ablation."""
    if KIND not in trials:
        return pd.Series(False, index=trials.index)
    return trials[KIND].isin(REFERENCES)


def ordered(levels: Iterable[str]) -> list[str]:
    """Distinct levels: numbers by size, then words by name, then ``full``, ``none`` and ``unset``."""

    def key(level: str) -> tuple[int, float, str]:
        if level in (*REFERENCES, UNSET):
            return 2, (*REFERENCES, UNSET).index(level), level
        try:
            return 0, float(level), level
        except ValueError:
            return 1, 0.0, level

    return sorted(set(levels), key=key)


def swept(trials: pd.DataFrame) -> list[str]:
    """The factors that take more than one level (the seed aside), the most telling first.

    A factor that only moves together with an earlier one (alpha = 2·rank) or with the seed, a level for each, is left
    out, and so is the adapter's kind, whose levels ``full`` and ``none`` every adapter factor shows.
    """
    groups = {group: index for index, group in enumerate(FACTOR_GROUPS)}
    lora = trials[~is_reference(trials)]
    lora = lora if len(lora) else trials
    seed = labels(lora, SEED)
    telling: dict[str, pd.Series] = {}
    for factor in sorted(
        (name for name in trials.columns if is_factor(name) and name not in (SEED, KIND)),
        key=lambda name: (groups[name.split(".")[0]], _rank_first(name), name),
    ):
        level = labels(lora, factor)
        if level.nunique() < 2 or (level.nunique() == seed.nunique() and follows(level, seed)):
            continue
        if not any(follows(level, earlier) for earlier in telling.values()):
            telling[factor] = level
    if not telling and KIND in trials and trials[KIND].nunique() > 1:
        return [KIND]
    return list(telling)


def _rank_first(name: str) -> int:
    first = ("adapter.rank", "adapter.targets", "adapter.init", "task.name", "optimizer.lr")
    return first.index(name) if name in first else len(first)


def follows(level: Iterable[str], *others: Iterable[str]) -> bool:
    """Whether ``others`` determine ``level``: no two trials agree in the levels of those and differ in this one."""
    given = list(zip(*others, strict=True))
    return len(set(zip(given, level, strict=True))) == len(set(given))


def select(trials: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The trials whose factors are at the given levels, e.g. ``{"adapter.init": ["kaiming", "pissa"]}``.

    A condition on the adapter keeps the reference trials, which have none; drop those with
    ``{"adapter.kind": ["lora"]}``. Raises BadRequestError for an unknown factor or level.
    """
    for factor, wanted in where.items():
        level = labels(trials, factor)
        known = set(level)
        chosen = [own if (own := own_level(factor, item)) in known else item for item in wanted]
        for item in chosen:
            if item not in known:
                raise unknown(f"level of {factor}", item, ordered(level))
        keep = level.isin(chosen)
        if is_adapter(factor):
            keep |= is_reference(trials)
        trials = trials[keep]
    if trials.empty:
        conditions = ", ".join(f"{factor}={','.join(wanted)}" for factor, wanted in where.items())
        raise BadRequestError(f"no trial has {conditions}")
    return trials
