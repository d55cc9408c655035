"""The one table of what each column means: label, unit, and which direction is better.

Factors are the flat keys of a trial's configuration (``adapter.rank``, ``seed``); metrics are logged names
with a slash (``eval/loss``, ``params/trainable``). Tables, plots and the report take every label from here.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

SEED = "seed"
LEARNING_RATE = "optimizer.lr"
TASK = "task.name"
KIND = "adapter.kind"
RATIO = "params/trainable_ratio"
TRAINABLE = "params/trainable"

FACTOR_GROUPS = ("task", "adapter", "optimizer", "training", "data")

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Column:
    """What a column means. ``better`` is None where no direction is better than the other.

    ``tuned_on`` is the metric by which a learning rate is chosen before this one is reported: forgetting is
    reported at the rate that suits the target task, not at the rate that forgets least. None means that the
    learning rate is no part of the question (speed, counts).
    """

    name: str
    label: str
    unit: str = ""
    better: Better | None = None
    tuned_on: str | None = None

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


def _metric(name: str, label: str, better: Better, unit: str = "", tuned_on: str | None = None) -> Column:
    return Column(name, label, unit, better, tuned_on or name)


_TABLE = (
    _metric("eval/loss", "eval loss", "lower"),
    _metric("eval/accuracy", "eval accuracy", "higher"),
    _metric("eval/perplexity", "eval perplexity", "lower"),
    _metric("eval/source_loss", "source loss (forgetting)", "lower", tuned_on="eval/loss"),
    _metric("eval/source_accuracy", "source accuracy (forgetting)", "higher", tuned_on="eval/loss"),
    _metric("eval/source_perplexity", "source perplexity (forgetting)", "lower", tuned_on="eval/loss"),
    _metric("eval/base_loss", "eval loss of the untouched base", "lower", tuned_on="eval/loss"),
    _metric("eval/base_source_loss", "source loss of the untouched base", "lower", tuned_on="eval/loss"),
    _metric("eval/regret", "regret to the oracle", "lower"),
    _metric("eval/train_mse", "train MSE", "lower"),
    _metric("eval/oracle_mse", "oracle MSE", "lower", tuned_on="eval/train_mse"),
    _metric("train/loss", "train loss", "lower"),
    Column("params/trainable", "trainable parameters", better="lower"),
    Column("params/total", "total parameters"),
    Column("params/trainable_ratio", "trainable ratio", better="lower"),
    Column("perf/samples_per_second", "speed", "samples/s", "higher"),
    Column("perf/step_ms", "step time", "ms", "lower"),
    Column("perf/peak_memory_mb", "peak memory", "MB", "lower"),
    Column("perf/pack_size", "pack size", "trials"),
    Column("adapter.rank", "rank"),
    Column("adapter.alpha", "alpha"),
    Column("adapter.init", "init"),
    Column("adapter.targets", "targets"),
    Column("adapter.kind", "adapter"),
    Column("optimizer.lr", "learning rate"),
    Column("task.name", "task"),
    Column("seed", "seed"),
)
COLUMNS = {column.name: column for column in _TABLE}


def describe(name: str) -> Column:
    """What column ``name`` means; for a name that the table does not hold, a guess from its last word."""
    if name in COLUMNS:
        return COLUMNS[name]
    if digit := re.fullmatch(r"eval/wrong_(\w+)", name):
        return _metric(name, f"errors on {digit[1]}", "lower", "images", "eval/loss")
    if is_factor(name):
        return Column(name, name.split(".", 1)[-1].replace("_", " "))
    guessed: Better | None = None
    if re.search(r"(loss|error|perplexity|mse|regret)$", name):
        guessed = "lower"
    elif re.search(r"(accuracy|f1|score|bleu)$", name):
        guessed = "higher"
    column = Column(name, name.replace("/", " ").replace("_", " "), better=guessed)
    return replace(column, tuned_on=name) if guessed else column


def is_factor(name: str) -> bool:
    """Whether ``name`` is a setting of a trial (the seed included) rather than something measured."""
    return name == SEED or (name.split(".", 1)[0] in FACTOR_GROUPS and "/" not in name)


def is_metric(name: str) -> bool:
    """Whether ``name`` is something measured."""
    return "/" in name
