"""A sweep's folder: where each trial's files are, what is already done, and what a trial leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from sweep import record
from sweep.execution.engine import Outcome
from sweep.execution.job import Job
from sweep.record import Record, replace_file
from sweep.schema import ConfigError


class Store:
    """The folder ``outputs/<name>`` of one launch; ``ablation`` names the question that it asks."""

    def __init__(self, folder: Path, ablation: str | None):
        self.folder = folder
        self.ablation = ablation

    def trial_folder(self, job: Job) -> Path:
        """Where the files of ``job`` are."""
        return self.folder / job.trial.label

    def finished(self, job: Job) -> Record | None:
        """The record of an earlier launch of this very trial, if it ran to its end and left all that is asked for.

        Raises ConfigError for a record that cannot be read.
        """
        if job.config.save_adapter and not self._adapter(job).exists():
            return None
        try:
            earlier = record.read(self.trial_folder(job))
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        return earlier if earlier and earlier.finished and earlier.trial_id == job.trial.id else None

    def record_of(self, job: Job, outcome: Outcome, environment: dict[str, Any]) -> Record:
        """What ``job`` leaves behind."""
        return Record(
            trial_id=job.trial.id,
            name=job.config.name,
            status=outcome.status,
            trial=job.trial.science(),
            ablation=self.ablation,
            params=outcome.params,
            result=outcome.result,
            perf=outcome.perf,
            environment=environment,
            notes=job.resolved.notes + outcome.notes,
            error=outcome.error,
        )

    def save_adapter(self, job: Job, tensors: Mapping[str, Tensor]) -> None:
        """Keep the trained tensors as ``adapter/adapter_model.safetensors``."""
        path = self._adapter(job)
        path.parent.mkdir(exist_ok=True)
        replace_file(path, save({name: t.cpu() for name, t in tensors.items()}))

    def _adapter(self, job: Job) -> Path:
        return self.trial_folder(job) / "adapter" / "adapter_model.safetensors"
