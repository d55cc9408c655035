"""Cells whose validation metric was better at some earlier evaluation than at the end, by more than noise.

The best of many noisy evaluations is always better than the last one. So the step is chosen as a learning rate is: each half
of the seeds (every second one) is evaluated at the step that was best on the other half, and a cell is named where what it
loses from there to the end is above zero by a paired t test over seeds, Holm-corrected over the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.columns import SEED, TRIAL
from analysis.statistics.intervals import ALPHA, ENOUGH_SEEDS, Paired, holm, paired
from analysis.statistics.levels import ordered
from analysis.statistics.notes import warning
from analysis.statistics.observations import Cell, Observations
from sweep.metrics import validation_name

KEEP = "training.keep"


def with_earlier(observations: Observations, trials: pd.DataFrame, history: pd.DataFrame) -> Observations:
    """The same with a note on the cells that were better earlier; ``trials`` are those that were observed.

    Only a metric that could have chosen the state to keep is asked, not what is forgotten, which is best before the first
    step; and only trials that kept their last state (``training.keep=last``, or from before that setting) count.
    """
    metric = validation_name(observations.metric.name)
    column = observations.metric
    if column.better is None or column.tuned_on != metric or metric not in history:
        return observations
    found = list(_losses(observations, trials, history, metric))
    corrected = holm([loss.p for _, loss, _, _ in found])
    named = [
        ("/".join(cell), better, loss.n, abs(loss.mean), step)
        for (cell, loss, better, step), p in zip(found, corrected, strict=True)
        if p < ALPHA and loss.mean > 0
    ]
    if not named:
        return observations
    return replace(observations, notes=(*observations.notes, warning("better earlier", metric=metric, cells=named)))


def _losses(
    observations: Observations, trials: pd.DataFrame, history: pd.DataFrame, metric: str
) -> Iterator[tuple[Cell, Paired, int, int]]:
    """Each cell's loss from its best step to its end by seed, how many seeds lost, and the step that is best on all seeds."""
    behind = observations.detail[observations.detail["value"].notna()]
    if KEEP in trials:
        behind = behind[trials.loc[behind[TRIAL], KEEP].ne("best").to_numpy()]
    ids = pd.Index(trials.loc[behind[TRIAL], "trial_id"])
    trial_of_row, logged_ids = pd.factorize(history["trial_id"])
    place = ids.get_indexer(logged_ids)[trial_of_row]
    rows = (place >= 0) & history[["trial_id", "step", metric]].notna().all(axis=1).to_numpy()
    at, steps = pd.factorize(history["step"].to_numpy()[rows], sort=True)
    curves = np.full((len(ids), len(steps)), np.nan)
    curves[place[rows], at] = history[metric].to_numpy()[rows] * observations.metric.sign
    for key, where in behind.groupby(list(observations.factors), sort=False).indices.items():
        cell = key if isinstance(key, tuple) else (key,)
        own = curves[where]
        logged = np.isfinite(own).all(axis=0)
        seeds = behind[SEED].to_numpy()[where]
        names = ordered(seeds)
        if logged.sum() < 2 or len(names) < ENOUGH_SEEDS:
            continue
        by_seed = pd.DataFrame(own[:, logged]).groupby(seeds).mean().loc[names].to_numpy()
        best = [int(by_seed[1 - half :: 2].mean(axis=0).argmin()) for half in (0, 1)]
        lost = np.array([row[-1] - row[best[index % 2]] for index, row in enumerate(by_seed)])
        step = steps[logged][by_seed.mean(axis=0).argmin()]
        yield tuple(map(str, cell)), paired(lost), int((lost > 0).sum()), int(step)
