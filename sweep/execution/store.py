"""A sweep's folder: where each trial's files are, what is already done, and what a trial leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep import record
from sweep.adapters.peft_format import WEIGHTS_FILE
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
        weights = WEIGHTS_FILE.get(job.trial.adapter.kind)
        if job.config.save_adapter and weights and not (self._adapter(job) / weights).exists():
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

    def save_adapter(self, job: Job, files: Mapping[str, bytes]) -> None:
        """Keep what was trained in ``adapter/``: these files, the last of them when the others are there."""
        for name, content in files.items():
            self._adapter(job).mkdir(exist_ok=True)
            replace_file(self._adapter(job) / name, content)

    def _adapter(self, job: Job) -> Path:
        return self.trial_folder(job) / "adapter"
