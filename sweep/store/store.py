"""A sweep's folder: where each trial's files are, what is already done, and what a trial leaves."""

import errno
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweep import claim, record, samples, scores
from sweep.adapters.peft.export import WEIGHTS_FILE
from sweep.errors import ConfigError
from sweep.files import read_foreign, replace_file
from sweep.metrics import to_plain
from sweep.record import Record, Status
from sweep.resolve import ResolvedTrial
from sweep.samples import SAMPLES_FILE, Sample
from sweep.scores import SCORES_FILE, Domain, Scores
from sweep.text import reason

MEASURED_BY = "metric_plugins"
"""Key of a record's environment: the plug-ins that measured its trained layers, by metric."""
WRITERS = 16
"""Files that are written at once: a disk confirms many at a time."""
_UNWRITTEN = ".records-"
"""Prefix of the file that holds a pack's records until each is in its trial's folder."""
_LARGEST_UNWRITTEN = 256 << 20


class UnwritableError(OSError):
    """The sweep's folder cannot be written to: the disk is full, read-only or gone. No trial is at fault."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block, which writes to ``folder``, into UnwritableError."""
    try:
        yield
    except OSError as error:
        gone = error.errno == errno.ENOENT
        safe = "files there have been deleted, perhaps finished ones" if gone else "what is finished is safe"
        raise UnwritableError(f"cannot write to {folder}: {error.strerror}; {safe}") from error


class Store:
    """The folder ``outputs/<name>`` of one launch; ``ablation`` names the question that it asks."""

    def __init__(self, folder: Path, ablation: str | None):
        self.folder = folder
        self.ablation = ablation
        self._asked: set[str] = set()

    def trial_folder(self, trial: ResolvedTrial) -> Path:
        """Where the files of ``trial`` are."""
        return self.folder / trial.label

    def count_other_trials(self, trials: Sequence[ResolvedTrial]) -> int:
        """How many trials have a record here and are neither among ``trials`` nor asked for by an earlier call."""
        self._asked |= {trial.label for trial in trials}
        here = record.trial_folders(self.folder) if self.folder.exists() else []
        return sum(path.name not in self._asked and (path / record.RECORD_FILE).exists() for path in here)

    @contextmanager
    def claim(self, trials: Sequence[ResolvedTrial]) -> Iterator[list[ResolvedTrial]]:
        """Keep other launches from training ``trials`` inside the block; yields those that none of them trains."""
        with claim.claim(self.folder, [trial.id for trial in trials]) as ours:
            yield [trial for trial in trials if trial.id in ours]

    def claimed(self, trials: Sequence[ResolvedTrial]) -> set[str]:
        """The ids of those of ``trials`` that another launch is training now."""
        return claim.claimed(self.folder, [trial.id for trial in trials])

    def wait_for(self, trials: Sequence[ResolvedTrial]) -> None:
        """Return when no other launch trains one of ``trials`` any more."""
        claim.wait_for(self.folder, [trial.id for trial in trials])

    @contextmanager
    def write_records_atomically(self, records: Sequence[Record]) -> Iterator[None]:
        """Let the block write these records of one pack; if it is killed, ``recover_records`` writes the rest.

        Pruning compares the trials of a pack, so they must not be trained again without the others.
        """
        waiting = self.folder / f"{_UNWRITTEN}{records[0].trial_id[: claim.SHORT]}.json"
        content = [record.plain(one) for one in records]
        with writing(self.folder):
            replace_file(waiting, json.dumps(content, allow_nan=False).encode())
            yield
            waiting.unlink()

    def recover_records(self) -> None:
        """Write the records of packs whose process was killed while it wrote them. Raises ConfigError for a damaged file."""
        for waiting in self.folder.glob(f"{_UNWRITTEN}*.json"):
            with suppress(FileNotFoundError):  # another launch was quicker
                records = _read_unwritten(waiting)
                with claim.claim(self.folder, [one.trial_id for one in records]) as ours:
                    if len(ours) == len(records):
                        self._write_missing(records)
                        waiting.unlink()

    def has_ended_before(self, trial: ResolvedTrial) -> bool:
        """Whether an earlier attempt at ``trial`` ended, whether it succeeded or not."""
        return (self.trial_folder(trial) / record.RECORD_FILE).exists()

    def record_of(
        self,
        trial: ResolvedTrial,
        environment: dict[str, Any],
        status: Status,
        notes: Sequence[str] = (),
        **figures: Any,
    ) -> Record:
        """What ``trial`` leaves behind: ``figures`` are the ``params``, ``result``, ``perf`` and ``error`` of its record."""
        if measured_by := trial.layer_metrics.identities:
            environment = {**environment, MEASURED_BY: measured_by}
        return Record(
            trial_id=trial.id,
            name=trial.config.name,
            status=status,
            trial=trial.science(),
            ablation=self.ablation,
            environment=environment,
            notes=(*trial.notes, *notes),
            metrics=to_plain(trial.metrics),
            **figures,
        )

    def save_adapter(self, trial: ResolvedTrial, files: Mapping[str, bytes]) -> None:
        """Keep what was trained in ``adapter/``: these files, the last of them when the others are there."""
        with writing(self.folder):
            for name, content in files.items():
                self._adapter(trial).mkdir(exist_ok=True)
                replace_file(self._adapter(trial) / name, content)

    def save_scores(self, trials: Sequence[ResolvedTrial], scored: Iterable[Mapping[Domain, Scores]]) -> None:
        """Keep what each of these trials scored on each test example in ``scores.safetensors``."""
        with writing(self.folder), ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(scores.write, scored, [self.trial_folder(trial) / SCORES_FILE for trial in trials]))

    def save_samples(self, trial: ResolvedTrial, written: Sequence[Sample]) -> None:
        """Keep what the trained model wrote in ``samples.jsonl``, where it wrote anything."""
        if written:
            with writing(self.folder):
                samples.write(written, self.trial_folder(trial) / SAMPLES_FILE)

    def _write_missing(self, records: Sequence[Record]) -> None:
        with writing(self.folder):
            for one in records:
                for folder in self.folder.glob(f"*-{one.trial_id[: claim.SHORT]}"):
                    if not folder.is_symlink() and not (folder / record.RECORD_FILE).exists():
                        record.write(one, folder)

    def lacks_adapter(self, trial: ResolvedTrial) -> bool:
        """Whether the adapter of ``trial`` is asked for and is not there."""
        weights = WEIGHTS_FILE.get(trial.adapter.kind)
        return bool(trial.config.save_adapter and weights and not (self._adapter(trial) / weights).exists())

    def lacks_metrics(self, trial: ResolvedTrial, left: Record) -> bool:
        """Whether a metric of a plug-in, as it is installed now, has not been taken of the trial with this record."""
        measured_by = left.environment.get(MEASURED_BY, {})
        return any(measured_by.get(name) != identity for name, identity in trial.layer_metrics.identities.items())

    def _adapter(self, trial: ResolvedTrial) -> Path:
        return self.trial_folder(trial) / "adapter"


def _read_unwritten(path: Path) -> list[Record]:
    """The records of one pack. Raises ConfigError for a file that holds anything else."""
    try:
        values = json.loads(read_foreign(path, _LARGEST_UNWRITTEN, links=False))
        if not isinstance(values, list):
            raise TypeError("not a list")
        records = [record.parse(one) for one in values]
        if not all(re.fullmatch("[0-9a-f]{16}", one.trial_id) for one in records):
            raise ValueError("a trial_id is not 16 hexadecimal digits")
    except FileNotFoundError:
        raise
    except (OSError, TypeError, ValueError, RecursionError) as error:
        fault = reason(error)
    else:
        return records
    raise ConfigError([f"{path} is not the records of a pack ({fault}); delete it to train its trials again"])
