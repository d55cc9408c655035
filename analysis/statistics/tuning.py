"""The best learning rate of a cell, chosen without looking at the seeds that are then reported.

Choosing the best of several rates on the very numbers that are reported makes every cell look better than it
is, and the noisier cell the more so. Here the seeds form two halves, and each half is reported at the rate that
was best on the other: no seed is wasted and none takes part in its own choice. Leaving out one seed at a time
would use more seeds for the choice, but all choices would then share their data and the test would be too bold
(``docs/statistics.md`` has the measured rates).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.columns import SEED, TRIAL, Column, describe
from analysis.statistics.intervals import mean
from analysis.statistics.levels import level_text, ordered
from analysis.statistics.notes import Note, info, warning
from analysis.statistics.observations import Cell
from sweep.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tuned:
    """``values``: the reported value of each seed (NaN where its trial at the chosen rate did not finish).

    ``rows``: the row of the group that each seed's value is from, −1 where its chosen rate was not tried. ``usual``: the
    rate chosen most often (NaN where every one diverged). ``edge``: whether that is the lowest or highest one tried.
    ``peeked``: a single seed, so rate and value come from the same trial. ``tried``: the number of rates.
    """

    values: dict[str, float]
    rows: dict[str, int]
    usual: float
    edge: bool
    peeked: bool
    tried: int


def criterion(trials: pd.DataFrame, column: Column, metrics: Mapping[str, Metric]) -> Column | None:
    """The metric by which a learning rate is chosen before ``column`` is reported.

    None where the rate does not matter to the question, or where no direction is known to be better.
    """
    if column.tuned_on is None:
        return None
    chooses = describe(column.tuned_on, metrics) if column.tuned_on in trials else column
    return chooses if chooses.better else None


def tune(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, dict[Cell, Tuned]]:
    """One row a seed of each cell of ``keys``, at the rate that the other seeds chose; and the choices.

    ``frame`` has one row a trial: ``keys``, ``seed``, ``trial`` (its place), ``value``, ``rate`` and ``score`` (see
    ``choose``). Cells without a rate (the untouched base) are handed on as they are.
    """
    import pandas as pd

    rows: list[dict[Hashable, object]] = []
    choices: dict[Cell, Tuned] = {}
    for key, group in frame.groupby(list(keys), sort=False):
        cell = tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
        if group["rate"].isna().all():
            rows += group[[*keys, SEED, TRIAL, "value"]].to_dict("records")
            continue
        chosen = choices[cell] = choose(group)
        levels: dict[Hashable, object] = dict(zip(keys, cell, strict=True))
        places = [*group[TRIAL], -1]
        rows += [
            {**levels, SEED: seed, TRIAL: places[chosen.rows[seed]], "value": value}
            for seed, value in chosen.values.items()
        ]
    return pd.DataFrame(rows), choices


def choice_notes(choices: Mapping[Cell, Tuned], column: Column, chosen_by: Column) -> list[Note]:
    """How the rates were chosen, and where the choice is weak."""
    rates = {level_text(choice.usual) for choice in choices.values()}
    notes = [
        info(
            "tuned",
            by=chosen_by.name if chosen_by.name != column.name else None,
            rate=rates.pop() if len(rates) == 1 else None,
        )
    ]
    budgets = {"/".join(cell): choice.tried for cell, choice in choices.items() if "none" not in cell}
    if len(set(budgets.values())) > 1:
        notes.append(warning("unequal budgets", rates=budgets))
    if peeked := sum(choice.peeked for choice in choices.values()):
        notes.append(warning("tuned on itself", cells=peeked))
    if edges := ["/".join(cell) for cell, choice in choices.items() if choice.edge]:
        notes.append(warning("edge of the grid", cells=edges, of=len(choices)))
    return notes


def choose(group: pd.DataFrame) -> Tuned:
    """Pick a rate for each seed of one cell from the other half: seeds in order, every second one.

    ``group`` has one row a trial: ``rate`` (number), ``seed``, ``value`` (to report), ``score`` (to minimise;
    +inf for a diverged trial, so that a rate which diverges in the other half is not chosen; NaN for a
    trial without a value, which is ignored).
    """
    seeds, row_of = np.unique(group["seed"].to_numpy(dtype=str), return_inverse=True)
    rates, column_of = np.unique(group["rate"].to_numpy(dtype=float), return_inverse=True)
    values = np.full((len(seeds), len(rates)), np.nan)
    scores = values.copy()
    places = np.full(values.shape, -1)
    values[row_of, column_of] = group["value"].to_numpy(dtype=float)
    places[row_of, column_of] = np.arange(len(group))
    scores[row_of, column_of] = group["score"].to_numpy(dtype=float)
    place = {seed: index for index, seed in enumerate(ordered(seeds))}
    half = np.array([place[seed] % 2 for seed in seeds])
    best_on = [_best(scores[half == side]) for side in (0, 1)]
    chosen = [best_on[1 - side] if len(seeds) > 1 else best_on[side] for side in half]
    names = list(map(str, seeds))
    reported = [np.nan if best is None else float(values[row, best]) for row, best in enumerate(chosen)]
    rows = [-1 if best is None else int(places[row, best]) for row, best in enumerate(chosen)]
    picked = [float(rates[best]) for best in chosen if best is not None]
    usual = max(sorted(set(picked)), key=picked.count) if picked else np.nan
    edge = len(rates) > 1 and usual in (rates.min(), rates.max())
    values_of, row_of_seed = dict(zip(names, reported, strict=True)), dict(zip(names, rows, strict=True))
    return Tuned(values_of, row_of_seed, usual, edge, len(seeds) == 1, len(rates))


def _best(scores: np.ndarray) -> int | None:
    """The column of ``scores`` (seeds, rates) with the lowest mean; None where every rate diverged or has no value."""
    means = [_mean_score(column) for column in scores.T]
    return int(np.argmin(means)) if np.isfinite(means).any() else None


def _mean_score(scores: np.ndarray) -> float:
    """The mean of the scores that are not NaN; infinite where one diverged or none is left."""
    said = scores[~np.isnan(scores)]
    return mean(said) if len(said) and np.isfinite(said).all() else np.inf
