"""Train one pack where we are: base, sinks, engine, records."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from sweep.adapters import peft_format
from sweep.execution.base import Base, load_base
from sweep.execution.engine import Outcome, failed, run_pack
from sweep.execution.environment import environment
from sweep.execution.job import Job
from sweep.execution.resolve import device_of
from sweep.execution.sinks import PackSinks
from sweep.execution.store import Store
from sweep.execution.threads import threads
from sweep.record import Record
from sweep.tasks.registry import build

if TYPE_CHECKING:
    from sweep.trackers.wandb import WandbSweep


_bases: dict[Hashable, Base] = {}
"""The bases that this process has used; with each go the decompositions of its weights."""


def base_of(job: Job, on_step: Callable[[int], None] = lambda step: None) -> Base:
    """The base that ``job`` starts from, trained now if nobody has done so before."""
    trial, device = job.trial, device_of(job.config.device)
    key = (trial.task, trial.data, job.cache_folder, device)
    if key not in _bases:
        task = build(trial.task, job.cache_folder)
        _bases[key] = load_base(trial.task, trial.data, task, job.cache_folder, device, on_step)
    return _bases[key]


def train_pack(
    pack: Sequence[Job], store: Store, mirror: "WandbSweep | None", on_step: Callable[[int], None]
) -> list[Record]:
    """Train the trials of ``pack`` together and write what they leave.

    A pack that fails is halved and tried again, down to the trial that fails alone: only that one's record
    says ``failed``, whether it ran out of memory or into a bug.
    """
    task = build(pack[0].trial.task, pack[0].cache_folder)
    base = base_of(pack[0])
    sinks = PackSinks(pack, store, mirror)
    for position, job in enumerate(pack):
        what = ", ".join(job.resolved.targets) or job.trial.adapter.kind
        sinks.note(position, f"trial {job.trial.id} in a pack of {len(pack)} on base {base.sha256}, adapting {what}")

    def stepped(step: int) -> None:
        on_step(step)
        sinks.flush()

    outcomes: list[Outcome] = []
    with threads(1):
        here = environment(device_of(pack[0].config.device), base.sha256)
        try:
            outcomes, folded = run_pack(pack, task, base, sinks.rows, stepped)
            for position, job in enumerate(pack):
                if job.config.save_adapter:
                    files = peft_format.files(folded, position, job.trial.adapter, task.peft_base)
                    store.save_adapter(job, files)
        except Exception as error:
            outcomes = [failed(error)] if len(pack) == 1 else []
    if not outcomes:  # and no longer inside the except block, whose traceback holds the memory of the whole pack
        middle = len(pack) // 2
        halves = (pack[:middle], pack[middle:])
        return [record for half in halves for record in train_pack(half, store, mirror, on_step)]
    records = [store.record_of(job, outcome, here) for job, outcome in zip(pack, outcomes, strict=True)]
    sinks.finish(records)
    return records
