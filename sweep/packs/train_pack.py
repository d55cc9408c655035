"""Train one pack where we are: base, sinks, engine, records."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sweep.adapters.peft import export
from sweep.hardware import device_of, threads
from sweep.packs.base import Base, load_base, pretrained
from sweep.packs.rows import PackSinks
from sweep.packs.run_pack import Outcome, failed, run_pack
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.environment import environment
from sweep.store.store import Store, UnwritableError

if TYPE_CHECKING:
    from sweep.trackers.wandb import WandbSweep

OnStep = Callable[[int], None]

_bases: dict[Hashable, Base] = {}
"""The bases that this process has used; with each go the decompositions of its weights."""


def pretrain(trial: ResolvedTrial, on_step: OnStep) -> None:
    """Make sure that the base of ``trial`` is in the cache; calls ``on_step`` after each step of its training."""
    task = trial.task.build(trial.cache_folder)
    pretrained(trial.task, trial.data, task, trial.cache_folder, device_of(trial.config.device), on_step)


def base_of(trial: ResolvedTrial) -> Base:
    """The base that ``trial`` starts from."""
    device = device_of(trial.config.device)
    key = (trial.task, trial.data, trial.cache_folder, device)
    if key not in _bases:
        task = trial.task.build(trial.cache_folder)
        _bases[key] = load_base(trial.task, trial.data, task, trial.cache_folder, device)
    return _bases[key]


def train_pack(
    pack: Sequence[ResolvedTrial], store: Store, mirror: "WandbSweep | None", on_steps: OnStep
) -> list[Record]:
    """Train the trials of ``pack`` together and write what they leave.

    A pack that fails is halved and tried again, down to the trial that fails alone: only that one's record
    says ``failed``, whether it ran out of memory or into a bug. Each call of ``on_steps`` says how many steps
    of trials were just done.

    Returns:
        The records of the pack, but for trials that another launch is training now.

    Raises:
        UnwritableError: the sweep's folder takes no more.

    """
    with _unsettled(pack, store) as (done, rest):
        return [*done, *(_train(rest, store, mirror, on_steps) if rest else [])]


def lose(trials: Sequence[ResolvedTrial], store: Store, error: Exception) -> list[Record]:
    """Write that ``trials`` failed for ``error``, which is no fault of their own training.

    Returns:
        Their records, but for trials that another launch is training now; what is settled stays as it is.

    """
    with _unsettled(trials, store) as (done, rest):
        return [*done, *write_lost(rest, store, error)]


def write_lost(trials: Sequence[ResolvedTrial], store: Store, error: Exception) -> list[Record]:
    """As ``lose``, for whoever holds the claim on ``trials`` already."""
    unknown = environment(torch.device("cpu"), base="unknown")
    records = [store.record_of(trial, failed(error), unknown) for trial in trials]
    PackSinks(trials, store, mirror=None).finish(records)
    return records


@contextmanager
def _unsettled(trials: Sequence[ResolvedTrial], store: Store) -> Iterator[tuple[list[Record], list[ResolvedTrial]]]:
    """Claim what no other launch trains of ``trials``: the records of what is settled among it, and the rest."""
    store.complete()
    with store.claim(trials) as ours:
        done = {trial.id: record for trial in ours if (record := store.settled(trial))}
        yield list(done.values()), [trial for trial in ours if trial.id not in done]


def _train(pack: Sequence[ResolvedTrial], store: Store, mirror: "WandbSweep | None", on_steps: OnStep) -> list[Record]:
    sinks = PackSinks(pack, store, mirror)
    outcomes: list[Outcome] = []
    base_hash = "unknown"

    def stepped(step: int) -> None:
        on_steps(len(pack))
        sinks.flush()

    with threads(1):
        try:
            task, base = pack[0].task.build(pack[0].cache_folder), base_of(pack[0])
            base_hash = base.sha256
            for position, trial in enumerate(pack):
                what = ", ".join(trial.targets + trial.saved) or trial.adapter.kind
                sinks.note(position, f"trial {trial.id} in a pack of {len(pack)} on base {base_hash}, adapting {what}")  # fmt: skip
            outcomes, folded = run_pack(pack, task, base, sinks.rows, stepped)
            for position, trial in enumerate(pack):
                if trial.config.save_adapter:
                    files = export.files(folded, position, trial.adapter, task.peft_base)
                    store.save_adapter(trial, files)
        except (KeyboardInterrupt, UnwritableError):
            sinks.abandon()
            raise
        except Exception as error:
            outcomes = [failed(error)] if len(pack) == 1 else []
        here = environment(device_of(pack[0].config.device), base_hash)
    if not outcomes:  # and no longer inside the except block, whose traceback holds the memory of the whole pack
        middle = len(pack) // 2
        halves = (pack[:middle], pack[middle:])
        return [record for half in halves for record in _train(half, store, mirror, on_steps)]
    records = [store.record_of(trial, outcome, here) for trial, outcome in zip(pack, outcomes, strict=True)]
    sinks.finish(records)
    return records
