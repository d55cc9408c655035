"""How much of a metric's variance each swept factor explains: analysis of variance with the seed as block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.columns import SEED, TRIAL, describe
from analysis.errors import BadRequestError
from analysis.statistics.cells import comparable, known_metric
from analysis.statistics.examples import score
from analysis.statistics.intervals import holm
from analysis.statistics.levels import is_reference, labels, swept
from analysis.statistics.notes import Note, info


@dataclass(frozen=True)
class Effect:
    """One source of variance.

    ``share`` is η² (its sum of squares over the sum of all, so that shares add up where trials were lost too),
    ``partial`` is partial η² (over itself plus the residual); ``p_holm`` is corrected over all effects of the same
    analysis.
    """

    source: str
    freedom: int
    share: float
    partial: float
    f: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Effects:
    """The effects of one metric, largest share first, with the residual degrees of freedom and notes."""

    metric: str
    effects: tuple[Effect, ...]
    residual_freedom: int
    n: int
    notes: tuple[Note, ...]


def effects(trials: pd.DataFrame, metric: str, factors: Sequence[str] | None = None) -> Effects:
    """Main effects and pairwise interactions of ``factors`` (default: all swept ones) on ``metric``.

    Type II sums of squares with sum contrasts (statsmodels), the seed as an additive block. An interaction
    enters where every pair of levels was tried and the residual keeps at least as many degrees of freedom.
    Reference trials (full, none) and unfinished ones are left out, and the notes count them.
    Raises BadRequestError when nothing was swept or too few trials are left.
    """
    known_metric(trials, metric)
    names = list(factors) if factors is not None else swept(trials)
    lora = trials[~is_reference(trials)]
    usable = lora[comparable(lora) & lora[metric].notna()]
    notes = []
    if len(usable) < len(lora):
        notes.append(info("effects without a value", trials=len(lora) - len(usable), metric=metric))
    frame, of_scores = _frame(usable, names, metric)
    notes += of_scores
    varying = [i for i, name in enumerate(names) if frame[f"f{i}"].nunique() > 1]
    if not varying:
        raise BadRequestError("no factor was swept, so there is no effect to attribute")
    block = frame["seed"].nunique() > 1
    mains = [f"C(f{i}, Sum)" for i in varying]
    size = 1 + sum(frame[f"f{i}"].nunique() - 1 for i in varying)
    size += frame["seed"].nunique() - 1 if block else 0
    if len(frame) <= size:
        raise BadRequestError(f"{len(frame)} trials are too few for the effects of {len(varying)} factors")
    nested = [names[i] for i in varying if block and (frame.groupby("seed")[f"f{i}"].nunique() <= 1).all()]
    if nested:
        raise BadRequestError(f"the levels of {nested[0]} share no seed, so its effect cannot be told from the seeds'")
    crossed = _crossed(frame, varying, len(frame) - size)
    if frame["y"].std() <= 1e-12 * abs(frame["y"].mean()):
        raise BadRequestError(f"{metric} is the same in every trial")
    terms = [
        *mains,
        *(f"C(f{i}, Sum):C(f{j}, Sum)" for i, j in crossed),
        *(["C(seed, Sum)"] if block else []),
    ]
    table = _anova(frame, terms)
    total = float(table["sum_sq"].sum())
    residual = float(table["sum_sq"].iloc[-1])
    sources = [names[i] for i in varying] + [f"{names[i]} × {names[j]}" for i, j in crossed]
    rows = table.iloc[: len(sources)]
    adjusted = holm(rows["PR(>F)"].tolist())
    found = [
        Effect(
            source,
            round(row["df"]),
            float(row["sum_sq"]) / total,
            float(row["sum_sq"]) / (float(row["sum_sq"]) + residual),
            float(row["F"]),
            float(row["PR(>F)"]),
            p,
        )
        for source, (_, row), p in zip(sources, rows.iterrows(), adjusted, strict=True)
    ]
    found.sort(key=lambda effect: -effect.share)
    if not block:
        notes.append(info("no block"))
    if not math.isclose(total, float(((frame["y"] - frame["y"].mean()) ** 2).sum()), rel_tol=1e-9):
        notes.append(info("unbalanced"))
    freedom = round(float(table["df"].iloc[-1]))
    return Effects(metric, tuple(found), freedom, len(frame), tuple(notes))


def _frame(trials: pd.DataFrame, names: Sequence[str], metric: str) -> tuple[pd.DataFrame, list[Note]]:
    """One row a trial: its levels as ``f0``, ``f1``, …, its ``seed``, and as ``y`` the value that a table would have."""
    frame = pd.DataFrame({f"f{i}": labels(trials, name).to_numpy() for i, name in enumerate(names)})
    values, _, notes = score(trials, pd.DataFrame({"value": trials[metric], TRIAL: trials.index}), describe(metric))
    return frame.assign(seed=labels(trials, SEED).to_numpy(), y=values["value"].to_numpy(dtype=float)), notes


def _crossed(frame: pd.DataFrame, varying: Sequence[int], freedom: int) -> list[tuple[int, int]]:
    """The interactions that the trials allow: every pair of levels tried, and enough residual ``freedom`` left."""
    crossed = []
    for i, j in combinations(varying, 2):
        levels = frame[f"f{i}"].nunique(), frame[f"f{j}"].nunique()
        extra = (levels[0] - 1) * (levels[1] - 1)
        full = frame.groupby([f"f{i}", f"f{j}"]).ngroups == levels[0] * levels[1]
        if full and freedom - extra >= max(3, extra):
            crossed.append((i, j))
            freedom -= extra
    return crossed


def _anova(frame: pd.DataFrame, terms: Sequence[str]) -> pd.DataFrame:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    with np.errstate(divide="ignore", invalid="ignore"):
        table: pd.DataFrame = anova_lm(ols("y ~ " + " + ".join(terms), frame).fit(), typ=2)
    return table.loc[[*terms, "Residual"]]
