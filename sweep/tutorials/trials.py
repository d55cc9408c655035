"""The finished trials of a tutorial's ablation, and their models as they were trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml

from sweep import record
from sweep.adapters.fold import Folded, fold_lora
from sweep.adapters.peft import import_
from sweep.config import parse
from sweep.errors import ConfigError
from sweep.packs.base import Base
from sweep.packs.train_pack import base_of
from sweep.record import Record
from sweep.resolve import ResolvedTrial, resolve
from sweep.tasks.task import Task


class Trained(NamedTuple):
    """A finished trial and where its files are."""

    folder: Path
    record: Record

    def value(self, key: str) -> Any:
        """A setting such as ``adapter.rank``, or a result such as ``eval/loss``."""
        if "/" in key:
            return self.record.result[key]
        values: Any = self.record.trial
        for part in key.split("."):
            values = values.get(part) if values is not None else None
        return values


@dataclass(frozen=True)
class Trials:
    """Some trials of one ablation."""

    trained: Sequence[Trained]

    def __iter__(self) -> Iterator[Trained]:
        return iter(self.trained)

    def __len__(self) -> int:
        return len(self.trained)

    def where(self, levels: Mapping[str, Any]) -> "Trials":
        """The trials at these levels. Raises ConfigError where there are none."""
        chosen = [one for one in self.trained if all(one.value(key) == level for key, level in levels.items())]
        if not chosen:
            raise ConfigError([f"no finished trial has {dict(levels)}"])
        return Trials(chosen)

    def mean(self, key: str) -> float:
        """The mean of a result over the seeds."""
        return mean(one.value(key) for one in self)

    def spread(self, key: str, decimals: int = 3) -> str:
        """Mean ± standard deviation of a result over the seeds."""
        values = [one.value(key) for one in self]
        return f"{mean(values):.{decimals}f} ± {stdev(values) if len(values) > 1 else 0.0:.{decimals}f}"

    def tuned(self, key: str = "eval/loss") -> "Trials":
        """The trials at the learning rate with the lowest mean of ``key``."""
        rates = {one.value("optimizer.lr") for one in self}
        return min((self.where({"optimizer.lr": rate}) for rate in rates), key=lambda trials: trials.mean(key))


def trials_of(sweep: Path) -> Trials:
    """The finished trials below ``sweep``. Raises ConfigError when there are none."""
    records = ((path.parent, record.read(path.parent)) for path in sorted(sweep.glob("*/record.json")))
    finished = [Trained(folder, one) for folder, one in records if one is not None and one.finished]
    if not finished:
        raise ConfigError([f"{sweep} has no finished trials; train them with: python -m sweep +ablation={sweep.name}"])
    return Trials(finished)


@dataclass(frozen=True)
class Restored:
    """A trial's model on its base."""

    trial: ResolvedTrial
    task: Task
    base: Base
    folded: Folded


def restored(trained: Trained, untrained: bool = False, **training: Any) -> Restored:
    """The trained model of a LoRA trial from its saved adapter, or as it started; ``training`` replaces settings."""
    composed = yaml.safe_load((trained.folder / ".hydra" / "config.yaml").read_text())
    composed |= {"name": "tutorial", "device": "cpu", "tracker": {"mode": "none", "project": ""}}
    config = parse(composed | {"training": composed["training"] | training})
    trial = resolve(config)
    base = base_of(trial)
    task = trial.task.build(trial.cache_folder)
    folded = fold_lora(base.model, [trial.adapter], [trial.targets], [trial.seed], trial.padded_rank, base.weights)
    if not untrained:
        import_.start(folded, 0, trained.folder / "adapter")
    folded.model.eval()
    return Restored(trial, task, base, folded)
