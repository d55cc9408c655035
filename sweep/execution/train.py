"""Train one pack where we are: base, sinks, engine, records."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sweep.adapters import peft_format
from sweep.execution.base import Base, load_base, pretrained
from sweep.execution.engine import Outcome, failed, run_pack
from sweep.execution.environment import environment
from sweep.execution.job import Job
from sweep.execution.resolve import device_of
from sweep.execution.sinks import PackSinks
from sweep.execution.store import Store, UnwritableError
from sweep.execution.threads import threads
from sweep.record import Record
from sweep.tasks.registry import build

if TYPE_CHECKING:
    from sweep.trackers.wandb import WandbSweep

OnStep = Callable[[int], None]

_bases: dict[Hashable, Base] = {}
"""The bases that this process has used; with each go the decompositions of its weights."""


def pretrain(job: Job, on_step: OnStep) -> None:
    """Make sure that the base of ``job`` is in the cache; calls ``on_step`` after each step of its training."""
    trial, task = job.trial, build(job.trial.task, job.cache_folder)
    pretrained(trial.task, trial.data, task, job.cache_folder, device_of(job.config.device), on_step)


def base_of(job: Job) -> Base:
    """The base that ``job`` starts from."""
    trial, device = job.trial, device_of(job.config.device)
    key = (trial.task, trial.data, job.cache_folder, device)
    if key not in _bases:
        task = build(trial.task, job.cache_folder)
        _bases[key] = load_base(trial.task, trial.data, task, job.cache_folder, device)
    return _bases[key]


def train_pack(pack: Sequence[Job], store: Store, mirror: "WandbSweep | None", on_steps: OnStep) -> list[Record]:
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


def lose(jobs: Sequence[Job], store: Store, error: Exception) -> list[Record]:
    """Write that ``jobs`` failed for ``error``, which is no fault of their own training.

    Returns:
        Their records, but for trials that another launch is training now; what is settled stays as it is.

    """
    with _unsettled(jobs, store) as (done, rest):
        return [*done, *write_lost(rest, store, error)]


def write_lost(jobs: Sequence[Job], store: Store, error: Exception) -> list[Record]:
    """As ``lose``, for whoever holds the claim on ``jobs`` already."""
    unknown = environment(torch.device("cpu"), base="unknown")
    records = [store.record_of(job, failed(error), unknown) for job in jobs]
    PackSinks(jobs, store, mirror=None).finish(records)
    return records


@contextmanager
def _unsettled(jobs: Sequence[Job], store: Store) -> Iterator[tuple[list[Record], list[Job]]]:
    """Claim what no other launch trains of ``jobs``: the records of what is settled among it, and the rest."""
    store.complete()
    with store.claim(jobs) as ours:
        done = {job.trial.id: record for job in ours if (record := store.settled(job))}
        yield list(done.values()), [job for job in ours if job.trial.id not in done]


def _train(pack: Sequence[Job], store: Store, mirror: "WandbSweep | None", on_steps: OnStep) -> list[Record]:
    sinks = PackSinks(pack, store, mirror)
    outcomes: list[Outcome] = []
    base_hash = "unknown"

    def stepped(step: int) -> None:
        on_steps(len(pack))
        sinks.flush()

    with threads(1):
        try:
            task, base = build(pack[0].trial.task, pack[0].cache_folder), base_of(pack[0])
            base_hash = base.sha256
            for position, job in enumerate(pack):
                what = ", ".join(job.resolved.targets + job.resolved.saved) or job.trial.adapter.kind
                sinks.note(position, f"trial {job.trial.id} in a pack of {len(pack)} on base {base_hash}, adapting {what}")  # fmt: skip
            outcomes, folded = run_pack(pack, task, base, sinks.rows, stepped)
            for position, job in enumerate(pack):
                if job.config.save_adapter:
                    files = peft_format.files(folded, position, job.trial.adapter, task.peft_base)
                    store.save_adapter(job, files)
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
    records = [store.record_of(job, outcome, here) for job, outcome in zip(pack, outcomes, strict=True)]
    sinks.finish(records)
    return records
