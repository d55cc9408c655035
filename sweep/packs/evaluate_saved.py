"""Score what finished trials have saved on other test examples, without training again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from sweep.adapters.peft import import_
from sweep.adapters.peft.export import WEIGHTS_FILE
from sweep.config import Config, parse
from sweep.errors import ConfigError
from sweep.hardware import threads
from sweep.packs.run_pack import fold_trials
from sweep.packs.train_pack import base_of
from sweep.record import Record
from sweep.resolve import ResolvedTrial, resolve
from sweep.scores import EVALUATED_FILE, write
from sweep.tasks.options import TaskOptions
from sweep.tasks.task import with_test_examples
from sweep.training.evaluate import measure_test
from sweep.training.examples import Examples, identify, scores_of

TOGETHER = 16
"""Trials that are evaluated at once; nothing is kept for a backward pass."""


@dataclass(frozen=True)
class Saved:
    """A finished trial as it was saved: ``trial`` starts where it ended, on a task with the test examples to score."""

    folder: Path
    trial: ResolvedTrial


def is_saved(folder: Path, record: Record) -> bool:
    """Whether what a finished trial has trained is there to be scored; an untouched base needs nothing."""
    weights = WEIGHTS_FILE.get(record.trial["adapter"]["kind"])
    return weights is None or (folder / "adapter" / weights).is_file()


def saved(folder: Path, record: Record, config: Config, examples: int) -> Saved:
    """The trial of ``record`` on a task with ``examples`` test examples of each domain or more, or with all there are.

    ``config`` is what Hydra has left of it. Raises ConfigError where that or its data are no longer what they were.
    """
    if resolve(config).id != record.trial_id:
        raise ConfigError(
            [f"{folder}: its data, its plug-ins or .hydra/config.yaml have changed since; they would be another trial"]
        )
    values = config.model_dump() | {"task": _with_test_examples(config, examples).model_dump()}
    if config.adapter.kind == "lora":
        values["adapter"] = {"kind": "lora", "peft": str(folder / "adapter")}
    return Saved(folder, resolve(parse(values)))


def _with_test_examples(config: Config, examples: int) -> TaskOptions:
    """The task with so many held-out rows, where their number can be chosen; at most as many as fit side by side."""
    if config.task.test_size is None:
        return config.task
    task = config.task.model_copy(update={config.task.test_size: examples})
    built = task.build(Path(config.cache))
    rooms = [room for domain in (built.target, built.source) if (room := getattr(domain, "room", None)) is not None]
    return task.model_copy(update={config.task.test_size: min([examples, *rooms])})


def evaluate_saved(trials: Sequence[Saved], count: int) -> Iterator[tuple[Saved, Examples]]:
    """Score trials on ``count`` test examples of each domain, those together that share a base and a shape of adapter.

    Rows that hold several examples are scored whole; of a domain with fewer examples, all are.

    Each is written as ``scores.evaluated.safetensors`` beside its record as it is yielded.
    """
    for _, group in groupby(sorted(trials, key=_shape), key=_shape):
        alike = list(group)
        size = 1 if alike[0].trial.adapter.runs_alone else TOGETHER
        for first in range(0, len(alike), size):
            pack = alike[first : first + size]
            for one, examples in zip(pack, _scores(pack, count), strict=True):
                write(examples, one.folder / EVALUATED_FILE)
                yield one, examples


def _scores(pack: Sequence[Saved], count: int) -> list[Examples]:
    first = pack[0].trial
    task, base = first.task.build(first.cache_folder), base_of(first)
    target, source = (with_test_examples(domain, count) for domain in (task.target, task.source))
    task = replace(task, target=target, source=source)
    with threads(1):
        folded = fold_trials([one.trial for one in pack], base)
        if first.adapter.kind == "full":
            import_.restore_whole(folded, pack[0].folder / "adapter")
        return scores_of(task, measure_test(folded, task), identify(task))


def _shape(one: Saved) -> str:
    """What the trials of a pack have in common, as in ``launch.packing``, where nothing is trained."""
    adapter = one.trial.adapter
    return repr((one.trial.task, one.trial.data, adapter.kind, one.trial.padded_rank, *adapter.arithmetic))
