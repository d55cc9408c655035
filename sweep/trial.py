"""One training with one seed: its science, the identity that follows from it, and its folder's name."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.adapters.options import AdapterOptions
from sweep.config import Config
from sweep.options import Options
from sweep.record import flatten
from sweep.registry import INITS, TASKS
from sweep.tasks.options import TaskOptions
from sweep.training.options import OptimizerOptions, TrainingOptions


@dataclass(frozen=True)
class Trial:
    """Everything that decides a trial's result, and nothing else.

    ``data`` is the fingerprint of the data that the task reads, so that other data make another trial.
    """

    task: TaskOptions
    adapter: AdapterOptions
    optimizer: OptimizerOptions
    training: TrainingOptions
    seed: int
    data: str

    @classmethod
    def of(cls, config: Config, data: str) -> "Trial":
        """The trial that ``config`` describes, on the data with fingerprint ``data``.

        LoRA+ has no meaning without a LoRA and is off there, so a grid does not repeat its baselines.
        """
        optimizer = config.optimizer
        if config.adapter.kind != "lora":
            optimizer = optimizer.model_copy(update={"lr_ratio": 1.0})
        return cls(config.task, config.adapter, optimizer, config.training, config.seed, data)

    def science(self) -> dict[str, Any]:
        """The full resolved value, as plain JSON types; of the user's own files the names, not the folders.

        A task or an initialisation of a plug-in has the plug-in's distribution, version and hash beside it.
        """
        science: dict[str, Any] = {
            "seed": self.seed,
            "data": self.data,
            **{key: part.model_dump(mode="json") for key, part in self._parts().items()},
        }
        if self.training.epochs is None:
            del science["training"]["epochs"]
        for name in self.task.own_paths():
            science["task"][name] = Path(science["task"][name]).name
        for group, plugin in (
            ("task", TASKS.plugin(self.task.name)),
            ("adapter", INITS.plugin(self.adapter.init or "")),
        ):
            if plugin:
                science[group]["plugin"] = plugin.identity
        return science

    def _parts(self) -> dict[str, Options]:
        return {"task": self.task, "adapter": self.adapter, "optimizer": self.optimizer, "training": self.training}

    def flat(self) -> dict[str, Any]:
        """The full resolved value with dotted keys, such as ``adapter.rank``, for trackers and tables."""
        return flatten(self.science())

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of what can change the result: the data, not where they lie.

        For an untouched base that is the task alone: no optimizer or training ever runs.
        """
        science = self.science()
        for name in self.task.own_paths():
            del science["task"][name]
        for group, options in self._parts().items():
            science[group] = options.without_unset(science[group])
        science["training"].pop("epochs", None)  # its steps say the same
        if self.adapter.kind == "none":
            del science["optimizer"], science["training"]
        return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short folder name that a person can read, such as ``r8-a16-pissa-attention-lr0.001-s0-1a2b3c4d``."""
        adapter = self.adapter
        if adapter.kind == "lora":
            targets = adapter.targets if isinstance(adapter.targets, str) else "+".join(adapter.targets or ())
            parts = [f"r{adapter.rank}", f"a{adapter.alpha:g}", adapter.init or "peft", targets[:24]]
            parts[2:2] = ["dora"] * adapter.dora
        else:
            parts = [adapter.kind]
        if adapter.kind != "none":
            ratio = self.optimizer.lr_ratio
            parts.append(f"lr{self.optimizer.lr:g}" + (f"x{ratio:g}" if ratio != 1 else ""))
        text = "-".join([*parts, f"s{self.seed}", self.id[:8]])
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
