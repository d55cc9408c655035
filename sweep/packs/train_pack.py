"""Train one pack in this process: claim its trials, train them on their base, write their rows and records."""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from sweep.adapters.peft import export
from sweep.adapters.peft.placement import placement_note
from sweep.guard import blaming
from sweep.hardware import device_of, threads, useful_threads
from sweep.packs.base import Base, load_base, pretrained
from sweep.packs.rows import PackRows
from sweep.packs.run_pack import run_pack
from sweep.record import Record
from sweep.registry import TASKS
from sweep.resolve import ResolvedTrial
from sweep.store.environment import environment
from sweep.store.skip import decide
from sweep.store.store import Store, UnwritableError
from sweep.tasks.task import Task
from sweep.text import failure, named

if TYPE_CHECKING:
    from sweep.trackers.wandb import WandbSweep

log = logging.getLogger("sweep")

OnStep = Callable[[int], None]

_bases: dict[Hashable, Base] = {}
"""The bases that this process has used; with each go the decompositions of its weights."""


def pretrain(trial: ResolvedTrial, on_step: OnStep) -> None:
    """Make sure that a base that is trained is in the cache; calls ``on_step`` after each step of its training."""
    task = trial.task.build(trial.cache_folder)
    if task.pretraining is None:  # it brings its base, which whoever trains a pack loads
        return
    with blaming(TASKS.plugin(trial.task.name), "pre-training"):
        pretrained(trial.task, trial.data, task, trial.cache_folder, device_of(trial.config.device), on_step)


def base_of(trial: ResolvedTrial, available: int = 1) -> Base:
    """The base that ``trial`` starts from; a large one is evaluated on ``available`` threads."""
    device = device_of(trial.config.device)
    key = (trial.task, trial.data, trial.cache_folder, device)
    if key not in _bases:
        task = trial.task.build(trial.cache_folder)
        _bases[key] = load_base(trial.task, trial.data, task, trial.cache_folder, device, available)
    return _bases[key]


def train_pack(
    pack: Sequence[ResolvedTrial], store: Store, mirror: "WandbSweep | None", on_steps: OnStep
) -> list[Record]:
    """Train the trials of ``pack`` together and write what they leave: on torch's threads if the base is large, or on one.

    A pack that fails is halved and tried again, down to the trial that fails alone: only that one's record
    says ``failed``, whether it ran out of memory or hit a bug. Each call of ``on_steps`` says how many steps
    of trials were just done.

    Returns:
        The records of the pack, except those of trials that another launch is training.

    Raises:
        UnwritableError: the sweep's folder takes no more.

    """
    with claim_unfinished(pack, store) as (done, rest):
        return [*done, *(_train(rest, store, mirror, on_steps) if rest else [])]


def record_failure(trials: Sequence[ResolvedTrial], store: Store, error: Exception) -> list[Record]:
    """Record that ``trials`` failed for ``error``, which their own training did not cause.

    Returns:
        Their records, except those of trials that another launch is training; finished ones stay as they are.

    """
    with claim_unfinished(trials, store) as (done, rest):
        return [*done, *record_claimed_failure(rest, store, error)]


def record_claimed_failure(trials: Sequence[ResolvedTrial], store: Store, error: Exception) -> list[Record]:
    """As ``record_failure``, for a caller that already holds the claim on ``trials``."""
    unknown = environment(torch.device("cpu"), base="unknown")
    records = [store.record_of(trial, unknown, "failed", error=failure(error)) for trial in trials]
    PackRows(trials, store, mirror=None).finish(records)
    return records


@contextmanager
def claim_unfinished(
    trials: Sequence[ResolvedTrial], store: Store
) -> Iterator[tuple[list[Record], list[ResolvedTrial]]]:
    """Claim the trials that no other launch trains: yields the records of those that need no training, and the rest."""
    store.recover_records()
    with store.claim(trials) as ours:
        skips = {trial.id: decide(trial, store) for trial in ours}
        done = {trial_id: skip.record for trial_id, skip in skips.items() if skip and skip.record}
        yield list(done.values()), [trial for trial in ours if trial.id not in done]


def _train(pack: Sequence[ResolvedTrial], store: Store, mirror: "WandbSweep | None", on_steps: OnStep) -> list[Record]:
    rows, available = PackRows(pack, store, mirror), torch.get_num_threads()
    records: list[Record] = []
    device, base_hash = device_of(pack[0].config.device), "unknown"
    plugin = TASKS.plugin(pack[0].task.name)

    def stepped(step: int) -> None:
        on_steps(len(pack))
        rows.flush()

    with threads(1):
        try:
            with blaming(plugin, "making its base"):
                task, base = pack[0].task.build(pack[0].cache_folder), base_of(pack[0], available)
            base_hash = base.sha256
            for position, trial in enumerate(pack):
                rows.note(position, _beginning(trial, len(pack), base_hash))
            with threads(useful_threads(base.model, available)), blaming(plugin, "training"):
                record_of = partial(store.record_of, environment=environment(device, base_hash))
                records, folded, samples, scores = run_pack(pack, task, base, record_of, rows.log, stepped)
            store.save_scores([pack[position] for position in scores], scores.values())
            for position, trial in enumerate(pack):
                rows.save_samples(position, samples[position])
                if trial.config.save_adapter:
                    files = export.files(folded, position, trial.adapter, task.peft_base)
                    store.save_adapter(trial, files)
                    records[position] = _with_placement(records[position], trial, files, task)
        except (KeyboardInterrupt, UnwritableError):
            rows.abandon()
            raise
        except Exception as error:
            if len(pack) == 1:
                here = environment(device, base_hash)
                records = [store.record_of(pack[0], here, "failed", error=failure(error))]
            else:
                told = failure(error)
                log.warning(
                    "A pack of %d trials stopped with %s: %s; its halves train apart.",
                    *(len(pack), told["type"], told["message"]),
                )
                records = []
    if not records:  # and no longer inside the except block, whose traceback holds the memory of the whole pack
        middle = len(pack) // 2
        halves = (pack[:middle], pack[middle:])
        return [record for half in halves for record in _train(half, store, mirror, on_steps)]
    rows.finish(records)
    return records


def _with_placement(record: Record, trial: ResolvedTrial, files: Mapping[str, bytes], task: Task) -> Record:
    """``record`` with a note where PEFT, which renames the layers of some architectures, loads another adapter."""
    network = task.unmodified() if export.WEIGHTS_FILE["lora"] in files else None
    if network is None or not (note := placement_note(files, network)):
        return record
    log.warning("%s: %s", trial.label, note)
    return replace(record, notes=(*record.notes, note))


def _beginning(trial: ResolvedTrial, pack_size: int, base_hash: str) -> str:
    adapted = named(trial.targets + trial.saved) or trial.adapter.kind
    return f"trial {trial.id} in a pack of {pack_size} on base {base_hash}, adapting {adapted}"
