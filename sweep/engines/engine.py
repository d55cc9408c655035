"""The interface of an engine: where packs run. An engine moves packs and knows no LoRA."""

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from sweep.packs.pack import Pack
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode


class Engine(Protocol):
    """Places packs, runs them again when their node is lost, and gives their records back."""

    start_s: float
    """Seconds that a pack takes to start: shorter work is not worth a pack of its own."""
    least_work_s: float
    """Seconds of work below which packs run one after another."""
    assumed_places: int
    """Packs at once that a dry run assumes, since it contacts no cluster."""
    is_here: bool
    """Whether packs train on this machine, so that a speed measured here is theirs."""
    room: float | None
    """Bytes that the trials of one pack may use; None shares this machine's memory among the packs at once."""

    def connect(self) -> None:
        """Connect to where packs run. Raises ConfigError if it does not answer."""

    def places(self, trials: Sequence[ResolvedTrial]) -> int:
        """How many packs of ``trials`` run at once if the user does not say."""

    def max_pack(self, trials: Sequence[ResolvedTrial]) -> int:
        """How many of ``trials`` may train in one pack."""

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
