"""The sweeps that are measured, each as the same command line for the harness and for its peer."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("LORA_SWEEP_CACHE", ROOT / "outputs" / ".cache"))


@dataclass(frozen=True)
class Sweep:
    """A grid of trials: the product of ``factors`` and ``seeds`` seeds, each trained for ``steps`` steps."""

    title: str
    task: str
    factors: Mapping[str, Sequence[object]]
    seeds: int
    steps: int
    batch_size: int
    at_least: float
    aim: float

    @property
    def cells(self) -> int:
        """Combinations of levels, seed aside."""
        return math.prod(len(levels) for levels in self.factors.values())

    @property
    def trials(self) -> int:
        """How many trials the whole grid has."""
        return self.cells * self.seeds

    def overrides(self, seeds: int, **other: object) -> list[str]:
        """The command line of the grid with ``seeds`` seeds; the harness and the peer understand the same."""
        fixed = {
            "task": self.task,
            "task.validation": 0,  # the peer has one held-out part
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "training.eval_every": "null",
            "cache": CACHE,
        }
        factors = {key: ",".join(map(str, levels)) for key, levels in self.factors.items()}
        values = fixed | factors | {"seed": f"range({seeds})" if seeds > 1 else 0} | other
        return [f"{key}={value}" for key, value in values.items()]


RANKS = (1, 2, 4, 8)
SWEEPS = {
    "toy": Sweep(
        title="toy 64→10, batch 32",
        task="toy_regression",
        factors={"adapter.rank": RANKS, "adapter.init": ("kaiming", "gaussian"), "optimizer.lr": (3e-3, 1e-2)},
        seeds=16,
        steps=500,
        batch_size=32,
        at_least=20,
        aim=40,
    ),
    "mnist": Sweep(
        title="MNIST MLP, batch 10",
        task="mnist",
        factors={"adapter.rank": RANKS, "optimizer.lr": (3e-4, 1e-3)},
        seeds=8,
        steps=300,
        batch_size=10,
        at_least=4,
        aim=8,
    ),
    "transformer": Sweep(
        title="transformer, batch 16",
        task="transformer",
        factors={"adapter.rank": (2, 8), "adapter.targets": ("attention", "all_linear"), "optimizer.lr": (3e-3,)},
        seeds=4,
        steps=100,
        batch_size=16,
        at_least=1.5,
        aim=3,
    ),
}
ONE_STEP = Sweep(
    title="toy, 1 step",
    task="toy_regression",
    factors={"adapter.rank": RANKS},
    seeds=250,
    steps=1,
    batch_size=32,
    at_least=50,
    aim=20,
)
