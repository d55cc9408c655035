"""A pack as plain values, which another process or machine can read, check again and train."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import schema
from sweep.execution.job import Job, job_of
from sweep.execution.sinks import wandb_sweep
from sweep.execution.store import Store
from sweep.execution.train import train_pack

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

Parcel = dict[str, Any]
"""``sweep`` (the folder), ``ablation``, ``mode`` (of the W&B mirror), ``configs`` and ``trial_ids`` of the trials."""


def parcel_of(pack: Sequence[Job], store: Store, mode: "Mode | None") -> Parcel:
    """The parcel that ``train_parcel`` trains in the sweep's folder, its paths being absolute."""
    return {
        "sweep": str(store.folder.absolute()),
        "ablation": store.ablation,
        "mode": mode,
        "configs": [_at_absolute_paths(job) for job in pack],
        "trial_ids": [job.trial.id for job in pack],
    }


def train_parcel(parcel: Parcel) -> list[dict[str, Any]]:
    """Train a parcel here; returns its records as plain values, but for trials that another process trains now.

    Raises:
        RuntimeError: with the data or the code that are here, it would be other trials.
        UnwritableError: the sweep's folder takes no more.

    """
    jobs = [job_of(schema.parse(config)) for config in parcel["configs"]]
    if [job.trial.id for job in jobs] != parcel["trial_ids"]:
        raise RuntimeError(
            "this node would train other trials: its data or its version of lora-sweep are not the launch's"
        )
    store = Store(Path(parcel["sweep"]), parcel["ablation"])
    records = train_pack(jobs, store, wandb_sweep(jobs[0], store, parcel["mode"]), lambda steps: None)
    return [asdict(record) for record in records]


def _at_absolute_paths(job: Job) -> dict[str, Any]:
    values = job.config.model_dump()
    values["cache"] = str(job.cache_folder.absolute())
    for name in job.config.task.own_paths():
        values["task"][name] = str(Path(values["task"][name]).absolute())
    return values
