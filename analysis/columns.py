"""What each column means: label, unit, and which direction is better.

Factors are the flat keys of a trial's configuration (``adapter.rank``, ``seed``); metrics are logged names
with a slash (``eval/loss``, ``params/trainable``), and mean what the records say. What another program calls ``r`` and
``loss`` is ``config.r`` and ``metric/loss`` here, and may be asked for by its own name. Tables, plots and the report
take every label from here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweep.metrics import OURS, Better, Kind, Metric

SEED = "seed"
TRIAL = "trial"
"""In frames of values: the place of a trial in the frame of trials."""
LEARNING_RATE = "optimizer.lr"
TASK = "task.name"
KIND = "adapter.kind"
RATIO = "params/trainable_ratio"
TRAINABLE = "params/trainable"
PACK_SIZE = "perf/pack_size"
COST, SIZE = "perf/", "params/"
"""Prefixes of costs and sizes that every trial has, whatever its task."""
WHILE_TRAINING = "train/"
"""Prefix of what is logged of training itself."""

SETTING, MEASURED = "config.", "metric/"
"""Prefixes of what another program has set and measured."""

FACTOR_GROUPS = ("adapter", "task", "optimizer", "training", "data", SETTING.removesuffix("."))
"""What settings begin with, the most telling first."""


@dataclass(frozen=True)
class Column:
    """What a column means. ``better`` is None where no direction is known to be better.

    ``tuned_on`` is the metric by which a learning rate is chosen before this one is reported: forgetting is
    reported at the rate that suits the target task, not at the rate that forgets least. None means that the
    learning rate is no part of the question (speed, counts). ``kind`` is the metric's (see ``sweep.metrics``).
    """

    name: str
    label: str
    unit: str = ""
    better: Better | None = None
    tuned_on: str | None = None
    kind: Kind = "mean"

    @property
    def of_pack(self) -> bool:
        """Whether it describes the packs in which trials happened to train; trials are not compared by it."""
        return self.kind == "pack"

    @property
    def title(self) -> str:
        """Label and unit, as an axis or a caption shows them."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def arrow(self) -> str:
        """An arrow that points to the better side, or nothing."""
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    @property
    def sign(self) -> float:
        """+1 where lower is better, −1 where higher is: ``sign * value`` is always to be minimised."""
        return -1.0 if self.better == "higher" else 1.0


LABELS = {
    "adapter.rank": "rank",
    "adapter.alpha": "alpha",
    "adapter.init": "init",
    "adapter.targets": "targets",
    "adapter.kind": "adapter",
    "optimizer.lr": "learning rate",
    "task.name": "task",
    "seed": "seed",
}
"""Factors that a reader knows by another name than the last words of their key."""


def describe(name: str, metrics: Mapping[str, Metric] = OURS) -> Column:
    """What column ``name`` means: a factor, or one of ``metrics``; of any other metric no direction is known."""
    if metric := metrics.get(name):
        return Column(name, metric.label, metric.unit, metric.better, metric.tuned_on, metric.kind)
    if is_factor(name):
        return Column(name, LABELS.get(name) or name.split(".", 1)[-1].replace("_", " "))
    return Column(name, name.replace("/", " ").replace("_", " "))


def is_factor(name: str) -> bool:
    """Whether ``name`` is a setting of a trial (the seed included) rather than something measured."""
    return name == SEED or (name.split(".", 1)[0] in FACTOR_GROUPS and "/" not in name)


def is_metric(name: str) -> bool:
    """Whether ``name`` is something measured."""
    return "/" in name


def full_name(asked: str, present: Iterable[object]) -> str:
    """The one of the columns ``present`` that ``asked`` names: by its name, or as another program calls it."""
    names = set(present)
    return next((name for name in (asked, SETTING + asked, MEASURED + asked) if name in names), asked)


def own_name(name: str) -> str:
    """What whoever made the column calls it: ``r`` for ``config.r``."""
    return name.removeprefix(SETTING).removeprefix(MEASURED)
