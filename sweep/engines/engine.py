"""Where packs run: processes of this machine, a Ray cluster, or SLURM. An engine moves packs and knows no LoRA."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sweep.hardware import available_memory
from sweep.packs.pack import Pack
from sweep.record import Record
from sweep.store.store import Store

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode


START_GB = 1.0
"""What a process takes before it trains anything."""
SPARE = 2.0
"""How many times its estimated memory a pack asks for."""


class Engine(Protocol):
    """Places packs, runs them again when their node is lost, and gives their records back."""

    start_s: float
    """Seconds that a pack takes to start: smaller packs than that are not worth a place of their own."""

    def places(self) -> int:
        """How many packs run at once if the user does not say."""

    def run(
        self, packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: Callable[[int], None]
    ) -> Generator[list[Record], None, None]:
        """Train every pack and yield its records as it ends; closing the generator cancels what has not ended.

        Args:
            packs: the plan, longest first.
            store: the sweep's folder.
            mode: of the W&B mirror, ``offline`` or ``online``; None for no mirror.
            workers: how many packs at once.
            on_steps: called with the number of trial-steps just done, for progress.

        """


@dataclass(frozen=True)
class Cluster:
    """What the user asked for: the engine, and what a pack may use on a node (None: what the plan estimates).

    ``address`` is that of a Ray cluster; ``minutes`` and ``slurm`` (sbatch's own options, such as ``partition``)
    concern SLURM.
    """

    engine: str = "local"
    address: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    minutes: int | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def memory_of(self, pack: Pack) -> float:
        """Gigabytes (10⁹ bytes) that ``pack`` asks for."""
        return self.memory_gb or START_GB + SPARE * pack.memory_bytes / 1e9

    @property
    def room(self) -> float:
        """Bytes that the trials of a pack may fill on a node, which is taken to be like this machine unless told."""
        if self.memory_gb is None:
            return available_memory(torch.device("cpu")) / SPARE
        return max(0.0, (self.memory_gb - START_GB) / SPARE * 1e9)
