"""Learning curves: mean and interval over seeds at every logged step."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.columns import SEED
from analysis.statistics.cells import mean_within_seed
from analysis.statistics.intervals import Summary, summarise
from analysis.statistics.levels import labels


@dataclass(frozen=True)
class Curve:
    """One level's curve: a summary over seeds at each of ``steps``; ``seeds`` has (steps, values) of each seed."""

    steps: tuple[float, ...]
    summaries: tuple[Summary, ...]
    seeds: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    @property
    def most_seeds(self) -> int:
        """The number of seeds at the step that has most."""
        return max(summary.n for summary in self.summaries)


def learning_curves(trials: pd.DataFrame, history: pd.DataFrame, factor: str, metric: str) -> dict[str, Curve]:
    """``metric`` over steps by level of ``factor``; levels without a logged value are absent.

    Trials of one level and seed are averaged first, so that an interval speaks of seeds only. Pass the trials at
    their cell's chosen learning rate (see ``at_chosen_rates``) where several were tried.
    """
    of_trial = {
        name: pd.Series(labels(trials, column).to_numpy(), index=trials["trial_id"])
        for name, column in (("level", factor), (SEED, SEED))
    }
    rows = history[history["trial_id"].isin(trials["trial_id"]) & history[metric].notna()]
    frame = pd.DataFrame({"step": rows["step"], "value": rows[metric]})
    for name, of in of_trial.items():
        frame[name] = rows["trial_id"].map(of)
    by_seed = mean_within_seed(frame, ["level", "step"]).sort_values(["level", "step", SEED])
    curves = {}
    for level, part in by_seed.groupby("level"):
        at = {float(str(step)): summarise(group["value"]) for step, group in part.groupby("step")}
        seeds = tuple((tuple(seed["step"]), tuple(seed["value"])) for _, seed in part.groupby(SEED))
        curves[str(level)] = Curve(tuple(at), tuple(at.values()), seeds)
    return curves
