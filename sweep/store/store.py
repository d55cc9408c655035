"""A sweep's folder: where each trial's files are, what is already done, and what a trial leaves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweep import record
from sweep.adapters.peft.export import WEIGHTS_FILE
from sweep.errors import ConfigError
from sweep.files import replace_file
from sweep.metrics import to_plain
from sweep.packs.run_pack import Outcome
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store import claim

_TOGETHER = ".records-"


class UnwritableError(OSError):
    """The sweep's folder takes no more: the disk is full, read-only or gone. No trial is to blame for that."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block, which writes to ``folder``, into UnwritableError."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(f"cannot write to {folder}: {error.strerror}; what is finished is safe") from error


class Store:
    """The folder ``outputs/<name>`` of one launch; ``ablation`` names the question that it asks."""

    def __init__(self, folder: Path, ablation: str | None):
        self.folder = folder
        self.ablation = ablation

    def trial_folder(self, trial: ResolvedTrial) -> Path:
        """Where the files of ``trial`` are."""
        return self.folder / trial.label

    def others(self, trials: Sequence[ResolvedTrial]) -> int:
        """How many trials have a record here and are not among ``trials``."""
        asked = {trial.label for trial in trials}
        return sum(path.parent.name not in asked for path in self.folder.glob(f"*/{record.RECORD_FILE}"))

    @contextmanager
    def claim(self, trials: Sequence[ResolvedTrial]) -> Iterator[list[ResolvedTrial]]:
        """Keep other launches from training ``trials`` inside the block; yields those that none of them trains."""
        with claim.claim(self.folder, [trial.id for trial in trials]) as ours:
            yield [trial for trial in trials if trial.id in ours]

    def wait_for(self, trials: Sequence[ResolvedTrial]) -> None:
        """Return when no other launch trains one of ``trials`` any more."""
        claim.wait_for(self.folder, [trial.id for trial in trials])

    @contextmanager
    def together(self, records: Sequence[Record]) -> Iterator[None]:
        """The block writes these records of one pack; should the process be killed in it, ``complete`` does the rest.

        Trials of a pack may have been judged by each other, so they are not to be trained without the others again.
        """
        waiting = self.folder / f"{_TOGETHER}{records[0].trial_id[: claim.SHORT]}.json"
        content = [record.plain(one) for one in records]
        with writing(self.folder):
            replace_file(waiting, json.dumps(content, allow_nan=False).encode())
            yield
            waiting.unlink()

    def complete(self) -> None:
        """Write the records of packs whose process was killed while it wrote them."""
        for waiting in self.folder.glob(f"{_TOGETHER}*.json"):
            with suppress(FileNotFoundError):  # another launch was quicker
                records = [Record.of(values) for values in json.loads(waiting.read_bytes())]
                with claim.claim(self.folder, [one.trial_id for one in records]) as ours:
                    if len(ours) == len(records):
                        self._write_missing(records)
                        waiting.unlink()

    def was_judged(self, trial: ResolvedTrial) -> bool:
        """Whether ``trial`` has come to an end before, be it a failure."""
        return (self.trial_folder(trial) / record.RECORD_FILE).exists()

    def settled(self, trial: ResolvedTrial, retry_failed: bool = True) -> Record | None:
        """The record of an earlier attempt at this very trial, if there is no reason to make another.

        A finished trial that left all that is asked for, and its whole history, is settled; one that was
        pruned, as long as pruning is asked for; a failed one without ``retry_failed``.
        Raises ConfigError for a record that cannot be read.
        """
        try:
            earlier = record.read(self.trial_folder(trial))
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        if earlier is None or earlier.trial_id != trial.id:
            return None
        match earlier.status:
            case "finished":
                lacks = self._lacks_adapter(trial) or record.lacks_history(earlier, self.trial_folder(trial))
                return None if lacks else earlier
            case "pruned":
                return earlier if trial.config.pruning else None
            case _:
                return None if retry_failed else earlier

    def record_of(self, trial: ResolvedTrial, outcome: Outcome, environment: dict[str, Any]) -> Record:
        """What ``trial`` leaves behind."""
        return Record(
            trial_id=trial.id,
            name=trial.config.name,
            status=outcome.status,
            trial=trial.science(),
            ablation=self.ablation,
            params=outcome.params,
            result=outcome.result,
            perf=outcome.perf,
            environment=environment,
            notes=trial.notes + outcome.notes,
            error=outcome.error,
            metrics=to_plain(trial.metrics),
        )

    def save_adapter(self, trial: ResolvedTrial, files: Mapping[str, bytes]) -> None:
        """Keep what was trained in ``adapter/``: these files, the last of them when the others are there."""
        with writing(self.folder):
            for name, content in files.items():
                self._adapter(trial).mkdir(exist_ok=True)
                replace_file(self._adapter(trial) / name, content)

    def _write_missing(self, records: Sequence[Record]) -> None:
        with writing(self.folder):
            for one in records:
                for folder in self.folder.glob(f"*-{one.trial_id[: claim.SHORT]}"):
                    if not (folder / record.RECORD_FILE).exists():
                        record.write(one, folder)

    def _lacks_adapter(self, trial: ResolvedTrial) -> bool:
        weights = WEIGHTS_FILE.get(trial.adapter.kind)
        return bool(trial.config.save_adapter and weights and not (self._adapter(trial) / weights).exists())

    def _adapter(self, trial: ResolvedTrial) -> Path:
        return self.trial_folder(trial) / "adapter"
