"""What a sweep asks, read from its trials: the task, the factors that vary, the metrics, the baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.columns import COST, KIND, LEARNING_RATE, SEED, SIZE, TASK, WHILE_TRAINING, Column, describe, is_metric
from analysis.errors import BadRequestError
from analysis.sources.sweep import Sweep
from analysis.statistics.cells import observe
from analysis.statistics.confidence import Generalise
from analysis.statistics.levels import REFERENCES, labels, ordered, swept
from analysis.statistics.observations import Observations
from sweep.metrics import LOSS, Metric, validation_name
from sweep.text import counted

OF_BASE = ("eval/base_", "test/base_")
"""Prefixes of the untouched base's metrics, which no setting of a trial changes."""

USUAL_BASELINE = {
    "adapter.rank": "8",
    "adapter.init": "kaiming",
    "adapter.targets": "all_linear",
    "adapter.scaling": "alpha/rank",
    "adapter.bias": "bias none",
    "adapter.kind": "lora",
    "optimizer.name": "adamw",
}


@dataclass(frozen=True)
class Question:
    """One task's part of a sweep.

    ``factors`` are the swept factors, the learning rate only where nothing else was swept; ``rows`` and
    ``columns`` are the two that a table shows. ``primary`` is the metric that decides, ``secondary`` the
    others worth a table: all that the task calls its own, on test examples where it has those, and what training costs.
    ``metrics`` says what they mean. ``generalise`` and ``margin`` say what its verdicts should hold for, and the largest
    difference that does not matter.
    """

    task: str
    trials: pd.DataFrame
    factors: tuple[str, ...]
    primary: str
    secondary: tuple[str, ...]
    seeds: tuple[str, ...]
    metrics: Mapping[str, Metric]
    generalise: Generalise = "both"
    margin: float | None = None

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

    def column(self, name: str) -> Column:
        """What a factor or a metric means."""
        return describe(name, self.metrics)

    def observe(self, factors: Sequence[str], metric: str | None = None) -> Observations:
        """``metric`` (default: the primary one) over the cells of ``factors``."""
        return observe(self.trials, factors, metric or self.primary, self.metrics, self.generalise)

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
    answerable: list[Question] = []
    silent: list[str] = []
    for name, trials in parts.items():
        try:
            answerable.append(_question(name, trials, sweep.metrics))
        except BadRequestError as error:
            silent.append(str(error))
    return answerable, silent


def _question(task: str, trials: pd.DataFrame, metrics: Mapping[str, Metric]) -> Question:
    names = measured(trials[trials["status"] == "finished"], metrics)
    if not any(not name.startswith((COST, SIZE)) for name in names):
        raise BadRequestError(
            f"no finished trial of {task} has a metric; {counted(len(trials), 'trial')} did not finish"
        )
    decides = deciding(trials, metrics)
    costs = [name for name in names if name.startswith(COST) and describe(name, metrics).better]
    varied = swept(trials)
    factors = [name for name in varied if name != LEARNING_RATE] or varied
    if not factors:
        candidates = ("adapter.rank", KIND, LEARNING_RATE, TASK)
        factors = [name for name in candidates if name in trials and trials[name].notna().any()][:1]
    if not factors:
        raise BadRequestError(f"the trials of {task} carry no configuration, so there is nothing to compare")
    own = [name for name in reported(trials, metrics) if not name.startswith((WHILE_TRAINING, *OF_BASE))]
    secondary = tuple(name for name in (*own, *costs) if name != decides)
    return Question(task, trials, tuple(factors), decides, secondary, tuple(ordered(labels(trials, SEED))), metrics)


def measured(trials: pd.DataFrame, metrics: Mapping[str, Metric]) -> list[str]:
    """The metrics that ``trials`` have: as their tasks declare them, then undeclared ones by name."""
    present = [name for name in trials.columns if is_metric(name) and trials[name].notna().any()]
    return [name for name in metrics if name in present] + sorted(name for name in present if name not in metrics)


def reported(trials: pd.DataFrame, metrics: Mapping[str, Metric]) -> list[str]:
    """The metrics of its own in which a task's results are reported, what is logged while training where it has none.

    Each is on test examples where all finished trials that have it were tested, otherwise on validation examples.
    """
    done = trials[trials["status"] == "finished"]
    names = measured(done, metrics)
    own = [name for name in names if not name.startswith((WHILE_TRAINING, COST, SIZE, *OF_BASE))]
    tested = {validation_name(name): name for name in own if name != validation_name(name)}
    partly = {name for name, test in tested.items() if name in own and (done[test].isna() & done[name].notna()).any()}
    left_out = {test if name in partly else name for name, test in tested.items()}
    return [name for name in own if name not in left_out] or [
        name for name in names if not name.startswith((COST, SIZE))
    ]


def deciding(trials: pd.DataFrame, metrics: Mapping[str, Metric]) -> str:
    """The metric that decides about ``trials``: the ``primary`` one of those reported.

    ``eval/loss`` where no trial has a metric, for an error that names what there is.
    """
    names = {validation_name(name): name for name in reported(trials, metrics)}
    return names[primary(list(names), metrics)] if names else LOSS.name


def primary(names: Sequence[str], metrics: Mapping[str, Metric]) -> str:
    """``eval/loss`` where there is one, otherwise the metric by which most others are tuned, the first of equals."""
    if LOSS.name in names:
        return LOSS.name
    tunes = Counter(metrics[name].tuned_on for name in names if name in metrics)
    return max(names, key=lambda name: tunes[name])
