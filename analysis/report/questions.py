"""What a sweep asks, read from its trials: the task, the factors that vary, the metrics, the baselines."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.columns import KIND, LEARNING_RATE, SEED, TASK, is_metric
from analysis.errors import BadRequestError
from analysis.sources.load import Sweep
from analysis.statistics.levels import REFERENCES, labels, ordered, swept

PRIMARY = ("eval/loss", "eval/accuracy", "eval/perplexity", "train/loss")
SECONDARY = (
    "eval/accuracy",
    "eval/perplexity",
    "eval/regret",
    "eval/source_loss",
    "eval/source_accuracy",
    "perf/step_ms",
)
USUAL_BASELINE = {
    "adapter.rank": "8",
    "adapter.init": "kaiming",
    "adapter.targets": "all_linear",
    "adapter.scaling": "alpha/rank",
    "adapter.bias": "none",
    "adapter.kind": "lora",
    "optimizer.name": "adamw",
}


@dataclass(frozen=True)
class Question:
    """One task's part of a sweep.

    ``factors`` are the swept factors, the learning rate only where nothing else was swept; ``rows`` and
    ``columns`` are the two that a table shows. ``primary`` is the metric that decides, ``secondary`` the
    others worth a table.
    """

    task: str
    trials: pd.DataFrame
    factors: tuple[str, ...]
    primary: str
    secondary: tuple[str, ...]
    seeds: tuple[str, ...]

    @property
    def rows(self) -> str:
        """The factor of a table's rows."""
        return self.factors[0]

    @property
    def columns(self) -> str | None:
        """The factor of a table's columns, where a second one was swept."""
        return self.factors[1] if len(self.factors) > 1 else None

    @property
    def shown(self) -> tuple[str, ...]:
        """The one or two factors of a table."""
        return self.factors[:2]

    @property
    def tuned(self) -> bool:
        """Whether the learning rate was swept beside the factors."""
        return LEARNING_RATE not in self.factors and LEARNING_RATE in swept(self.trials)

    def baseline(self, factor: str) -> str:
        """The level that others are compared with: the usual default where it was tried, else the first."""
        levels = ordered(labels(self.trials[self.trials["status"] == "finished"], factor))
        usual = USUAL_BASELINE.get(factor)
        if usual in levels:
            return str(usual)
        plain = [level for level in levels if level not in REFERENCES]
        return (plain or levels)[0]


def questions(sweep: Sweep) -> tuple[list[Question], list[str]]:
    """One question a task, in the tasks' order; and a sentence for each task that has nothing to show."""
    if TASK not in sweep.trials:
        parts = {sweep.name: sweep.trials}
    else:
        task = labels(sweep.trials, TASK)
        parts = {name: sweep.trials[task == name] for name in ordered(task)}
    found: list[Question] = []
    failed: list[str] = []
    for name, trials in parts.items():
        try:
            found.append(_question(name, trials))
        except BadRequestError as error:
            failed.append(str(error))
    return found, failed


def _question(task: str, trials: pd.DataFrame) -> Question:
    finished = trials[trials["status"] == "finished"]
    present = [name for name in finished.columns if is_metric(name) and finished[name].notna().any()]
    measured = [name for name in present if not name.startswith(("params/", "perf/"))]
    if not measured:
        raise BadRequestError(f"no finished trial of {task} has a metric; {len(trials)} trials did not finish")
    primary = next((name for name in PRIMARY if name in measured), sorted(measured)[0])
    found = swept(trials)
    factors = [name for name in found if name != LEARNING_RATE] or found
    if not factors:
        candidates = ("adapter.rank", KIND, LEARNING_RATE, TASK)
        factors = [name for name in candidates if name in trials and trials[name].notna().any()][:1]
    if not factors:
        raise BadRequestError(f"the trials of {task} carry no configuration, so there is nothing to compare")
    secondary = tuple(name for name in SECONDARY if name in present and name != primary)
    return Question(task, trials, tuple(factors), primary, secondary, tuple(ordered(labels(trials, SEED))))
