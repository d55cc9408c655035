"""What a metric is called, its unit, which way is better, and which metric chooses its learning rate.

A task declares the metrics that it gives, always by their full names. They are written into every record, so that
tables, dashboards and trackers know them wherever the record is read; records without them have our own table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Better = Literal["lower", "higher"]
Kind = Literal["mean", "sum", "end", "pack"]


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is its full name, such as ``eval/loss``; any other is a ValueError.

    ``better`` is None where no direction is known: then there is no bold, no verdict and no tuning. ``tuned_on`` is the
    metric by which a learning rate is chosen before this one is reported (forgetting is reported at the rate that suits
    the target task); None means that the rate is no part of the question. ``kind`` says what the value of a domain is:
    the mean over its examples, their sum, or a figure taken once, at a trial's end, which has no domain. A figure of the
    whole ``pack`` in which a trial happened to train is shown, but trials are not compared by it.
    """

    name: str
    label: str
    unit: str = ""
    better: Better | None = None
    tuned_on: str | None = None
    kind: Kind = "mean"

    def __post_init__(self) -> None:
        group, slash, rest = str(self.name).partition("/")
        if not (group and slash and rest):
            raise ValueError(f"metric {self.name!r}: must be a full name, such as eval/{self.name}")


def _tuned(name: str, label: str, better: Better, unit: str = "", kind: Kind = "mean") -> Metric:
    return Metric(name, label, unit, better, name, kind)


LOSS = _tuned("eval/loss", "eval loss", "lower")
ACCURACY = _tuned("eval/accuracy", "eval accuracy", "higher")
PERPLEXITY = _tuned("eval/perplexity", "eval perplexity", "lower")
WRONG = tuple(
    Metric(f"eval/wrong_{digit}", f"errors on {digit}", "images", "lower", LOSS.name, "sum") for digit in range(10)
)
TOKEN_ACCURACY = _tuned("eval/token_accuracy", "token accuracy", "higher")
EXACT_MATCH = _tuned("eval/exact_match", "exact match", "higher", kind="end")
REGRET = _tuned("eval/regret", "regret to the oracle", "lower", kind="end")
TRAIN_MSE = _tuned("eval/train_mse", "train MSE", "lower", kind="end")
ORACLE_MSE = Metric("eval/oracle_mse", "oracle MSE", "", "lower", TRAIN_MSE.name, "end")
ORACLE_RISK = Metric("eval/oracle_risk", "oracle risk", kind="end")
TRAIN_LOSS = _tuned("train/loss", "train loss", "lower")
TRAIN_LR = Metric("train/lr", "learning rate while training")
KEPT_STEP = Metric("train/kept_step", "step that was kept", "steps", kind="end")

ALONE_STEP = Metric("perf/alone_step_ms", "step time alone", "ms", "lower", kind="end")
ALONE_MEMORY = Metric("perf/alone_peak_memory_mb", "peak memory alone, without the base", "MB", "lower", kind="end")
ALONE = (
    ALONE_STEP,
    Metric("perf/alone_step_iqr_ms", "interquartile range of the step time alone", "ms", kind="end"),
    Metric("perf/alone_samples_per_second", "speed alone", "samples/s", "higher", kind="end"),
    Metric("perf/alone_tokens_per_second", "speed alone", "tokens/s", "higher", kind="end"),
    ALONE_MEMORY,
    Metric("perf/alone_base_memory_mb", "memory of the base", "MB", kind="end"),
    Metric("perf/alone_step_gflops", "arithmetic of a step alone", "GFLOP", "lower", kind="end"),
)
"""What a step of a trial costs when nothing trains beside it: trials may be compared by these."""
OF_PACK = (
    Metric("perf/samples_per_second", "speed of its pack", "samples/s", kind="pack"),
    Metric("perf/step_ms", "step time of its pack", "ms", kind="pack"),
    Metric("perf/train_seconds", "training time of its pack", "s", kind="pack"),
    Metric("perf/peak_memory_mb", "peak memory of its pack's process", "MB", kind="pack"),
)
"""The cost of the pack in which a trial happened to train."""
OF_EVERY_TRIAL = (
    TRAIN_LOSS,
    TRAIN_LR,
    KEPT_STEP,
    Metric("params/trainable", "trainable parameters", better="lower", kind="end"),
    Metric("params/total", "total parameters", kind="end"),
    Metric("params/trainable_ratio", "trainable ratio", better="lower", kind="end"),
    *ALONE,
    *OF_PACK,
    Metric("perf/pack_size", "pack size", "trials", kind="end"),
)
"""What every record holds, whatever its task; the step that was kept, only with ``training.keep=best``."""


def instead_of_pack(name: str) -> str:
    """The metric by which to compare trials instead of that of their packs with this name."""
    alone = name.replace("perf/", "perf/alone_", 1)
    return alone if alone in {metric.name for metric in ALONE} else ALONE_STEP.name


def of_source(metric: Metric) -> Metric:
    """The same metric on the domain of pre-training, ``eval/source_…`` or ``test/source_…``: what is forgotten."""
    label = f"source {metric.label.removeprefix('eval ')} (forgetting)"
    return replace(metric, name=metric.name.replace("/", "/source_", 1), label=label, tuned_on=LOSS.name)


def of_base(metric: Metric) -> Metric:
    """The same metric of the untouched base, ``eval/base_…`` or ``test/base_…``."""
    label = f"{metric.label.removesuffix(' (forgetting)')} of the untouched base"
    return replace(metric, name=metric.name.replace("/", "/base_", 1), label=label, tuned_on=LOSS.name)


def of_test(metric: Metric) -> Metric:
    """The same metric on the test examples, ``test/…``: taken once, at the end; ``eval/…`` chooses a rate for it."""
    label = metric.label.replace("eval ", "test ", 1) if "eval " in metric.label else f"test {metric.label}"
    return replace(metric, name=metric.name.replace("eval/", "test/", 1), label=label)


def validation_name(name: str) -> str:
    """The name of the same metric while training, on validation examples: ``eval/loss`` of ``test/loss``."""
    return name.replace("test/", "eval/", 1) if name.startswith("test/") else name


def with_domains(metrics: Iterable[Metric]) -> list[Metric]:
    """``metrics`` of the target domain, the same on the source domain, and the averages of the untouched base.

    After them each of these on the test examples, and once the figures taken at a trial's end.
    """
    declared = list(metrics)
    target = [metric for metric in declared if metric.kind != "end"]
    both = [*target, *map(of_source, target)]
    bases = [of_base(metric) for metric in both if metric.kind == "mean"]
    evaluated = [*both, *bases]
    return [*evaluated, *map(of_test, evaluated), *(metric for metric in declared if metric.kind == "end")]


OURS = {
    metric.name: metric
    for metric in (
        *with_domains((LOSS, ACCURACY, PERPLEXITY, *WRONG, REGRET, TRAIN_MSE, ORACLE_MSE, ORACLE_RISK)),
        *OF_EVERY_TRIAL,
    )
}
"""The metrics of our own tasks by name, for records that were written before records held them."""


def to_plain(metrics: Iterable[Metric]) -> dict[str, dict[str, Any]]:
    """As a record holds them: by name, without what is empty."""
    return {
        metric.name: {key: value for key, value in asdict(metric).items() if key != "name" and value not in ("", None)}
        for metric in metrics
    }


def of_plain(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    """From what a record holds. Raises TypeError or ValueError for what is not a metric."""
    metrics = {name: Metric(name, **fields) for name, fields in values.items()}
    for metric in metrics.values():
        texts = (metric.label, metric.unit, "" if metric.tuned_on is None else metric.tuned_on)
        known = metric.better in (None, *get_args(Better)) and metric.kind in get_args(Kind)
        if not known or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{metric.name!r} is not a metric")
    return metrics
