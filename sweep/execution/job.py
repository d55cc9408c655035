"""One trial of a launch: what to train and on which layers, checked against its model and its data."""

from dataclasses import dataclass
from pathlib import Path

from sweep import schema
from sweep.execution.resolve import Resolved, device_of, resolve, trial_of
from sweep.trial import Trial


@dataclass(frozen=True)
class Job:
    """A trial that can run, with the configuration that it came from."""

    config: schema.Config
    trial: Trial
    resolved: Resolved

    @property
    def cache_folder(self) -> Path:
        """Where pre-trained bases and fetched data are kept."""
        return Path(self.config.cache)

    @property
    def start(self) -> Path | None:
        """The folder of the PEFT adapter whose weights the trial starts from."""
        folder = self.config.adapter.peft
        return Path(folder) if folder and self.trial.adapter.peft else None


def job_of(config: schema.Config) -> Job:
    """Resolve a validated configuration. Raises ConfigError when the trial cannot run."""
    device_of(config.device)
    trial = trial_of(config)
    return Job(config, trial, resolve(trial, Path(config.cache), config.adapter.peft))
