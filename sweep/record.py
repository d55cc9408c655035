"""What a finished trial leaves behind: one ``record.json`` and one ``history.jsonl``.

Standard library only, because the analysis imports this module.
"""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from sweep.files import open_foreign, read_foreign, replace_file
from sweep.metrics import of_plain
from sweep.text import counted

FORMAT = 1
RECORD_FILE = "record.json"
HISTORY_FILE = "history.jsonl"
NOT_TRIALS = ("report", "wandb")
"""Folders beside those of the trials."""

LARGEST = 1e100
"""Numbers above count as infinite: the statistics square them and add them up."""
LARGEST_RECORD = 16 << 20
LARGEST_HISTORY = 256 << 20
"""Largest files that are read, in bytes; a record has a few KB, a row of a history some hundred bytes."""
MOST_KEYS = 2000
DEEPEST = 50
"""Keys and levels of a record; those of ours have up to 500 and 6."""
NUMBERS = ("seed", "adapter.rank", "adapter.alpha", "optimizer.lr", "training.steps", "training.batch_size")
"""Settings that are numbers in every trial that has them."""
LAST_BYTES = 1 << 16
"""Bytes read from a history's end: more than its last row has."""
COMPARABLE = ("lora_sweep", "code", "torch", "processor", "device", "mkl_cbwr")
"""What may change the last bits of a result; the trials of one sweep should share it."""

Status = Literal["finished", "pruned", "diverged", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Record:
    """The outcome of one trial.

    ``trial`` is the full resolved configuration (task, adapter, optimizer, training, seed); ``params`` holds
    ``trainable``, ``total`` and ``trainable_ratio`` (a fraction); ``result`` holds metrics under their logged
    names (``train/loss``, ``eval/loss``, …); ``perf`` holds what ``sweep.metrics`` has under ``perf/``: ``alone_…`` of
    the trial itself, ``step_ms`` and the others of its pack of ``pack_size``; ``error`` holds ``type``, ``message`` and
    ``traceback``; ``metrics`` holds what each metric means, by its name, as ``sweep.metrics.to_plain`` gives it; empty
    in records from before.
    A value that does not exist is absent, never a sentinel.
    """

    trial_id: str
    name: str
    status: Status
    trial: dict[str, Any]
    ablation: str | None = None
    params: dict[str, float] = field(default_factory=dict)
    result: dict[str, float] = field(default_factory=dict)
    perf: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: dict[str, str] | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Record":
        """The record of these plain values. Raises TypeError where they are not those of a record."""
        return cls(**{**values, "notes": tuple(values.get("notes", ()))})

    @property
    def finished(self) -> bool:
        """Whether the trial ran to its last step."""
        return self.status == "finished"

    @property
    def healthy(self) -> bool:
        """Whether nothing went wrong: the trial ran to its last step, or was pruned before."""
        return self.status in ("finished", "pruned")

    @property
    def last_step(self) -> int:
        """The step of the last row that the history of a finished trial has."""
        return 0 if self.trial["adapter"]["kind"] == "none" else self.trial["training"]["steps"]


def write(record: Record, folder: Path) -> None:
    """Write ``record.json`` atomically: its existence means that everything else was written before it.

    Raises ValueError, before anything is written, for a record that ``read`` would refuse.
    """
    text = json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(folder / RECORD_FILE, text.encode() + b"\n")


def plain(record: Record) -> dict[str, Any]:
    """The record as its file holds it: NaN and infinity are None.

    Raises ValueError for a record that ``read`` would refuse.
    """
    values = finite(asdict(record))
    if fault := malformed(Record.of(values)):
        raise ValueError(f"the record of trial {record.trial_id} was not written: {fault}")
    return values


def read(folder: Path) -> Record | None:
    """Read the record in ``folder``; None where there is none yet.

    Raises ValueError, naming the file, when it is not a record of this format.
    """
    path = folder / RECORD_FILE
    try:
        return parse(json.loads(read_foreign(path, LARGEST_RECORD, links=False)))
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = f"not a record ({error.strerror})"
    except UnfitError as error:
        fault = str(error)
    except (ValueError, RecursionError) as error:
        fault = f"not valid JSON ({error})"
    raise ValueError(f"{path} is {fault}; delete it to run that trial again")


class UnfitError(ValueError):
    """Values that are not a record; the message completes a sentence that ends in "is"."""


def parse(values: Any) -> Record:
    """The record that is written as ``values``, which may be any that JSON can hold. Raises UnfitError."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UnfitError(f"not a record of format {FORMAT}")
    try:
        fault = too_large(values) or malformed(record := Record.of(values))
    except TypeError as error:
        fault = str(error)
    if fault:
        raise UnfitError(f"not a record ({fault})")
    return record


def too_large(values: Any) -> str:
    """What is wrong with the number of keys or of levels in plain values, or an empty string."""
    level, keys = [values], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                keys += len(value)
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
        if keys > MOST_KEYS:
            return f"it has more than {MOST_KEYS:,} keys"
        if not below:
            return ""
        level = below
    return f"it has more than {DEEPEST} levels"


def malformed(record: Record) -> str:
    """The first fault in a record's fields, which no trial could have caused, or an empty string."""
    return next(chain(_wrong_types(record), _wrong_outcome(record), _wrong_figures(record), _wrong_metrics(record)), "")


def _wrong_types(record: Record) -> Iterator[str]:
    for name in ("trial_id", "name", "status"):
        if not isinstance(getattr(record, name), str):
            yield f"{name} is not a string"
    if not record.trial_id.isprintable():
        yield "trial_id has characters that cannot be printed"
    if record.status not in STATUSES:
        yield f"status {record.status!r} is none of {', '.join(STATUSES)}"
    for name in ("trial", "result", "params", "perf", "environment", "metrics"):
        if not isinstance(getattr(record, name), dict):
            yield f"{name} is not a mapping"
    for group in ("task", "adapter", "optimizer", "training"):
        if not isinstance(record.trial.get(group), dict):
            yield f"its trial's {group} is not a mapping"
    if not isinstance(record.ablation, str | None) or not all(isinstance(note, str) for note in record.notes):
        yield "ablation or a note is not a string"
    error = {} if record.error is None else record.error
    if not isinstance(error, dict) or not all(isinstance(text, str) for text in error.values()):
        yield "error is not a mapping of strings"
    yield from wrong_settings(flatten(record.trial))
    yield from wrong_settings(flatten(record.environment, "environment."))


def wrong_settings(trial: Mapping[str, Any]) -> Iterator[str]:
    """Faults in the settings of a trial, which are given with dotted keys."""
    for key, value in trial.items():
        items = value if isinstance(value, list | tuple) else [value]
        if key in NUMBERS and not (value is None or _is_plain_number(value)):
            yield f"{key} is not a number"
        elif not all(
            item is None or isinstance(item, str | bool | list | dict) or _is_plain_number(item) for item in items
        ):
            yield f"{key} is not a finite number of at most 64 bits"


def _is_plain_number(value: Any) -> bool:
    """Whether ``value`` is a float that is finite or an integer of at most 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _wrong_outcome(record: Record) -> Iterator[str]:
    if record.finished and not record.result:
        yield "it finished without a result"
    if not record.healthy and not record.error:
        yield f"it {record.status} without an error"


def _wrong_figures(record: Record) -> Iterator[str]:
    for name in ("result", "params", "perf"):
        for key, value in getattr(record, name).items():
            if value is not None and not is_number(value):
                yield f"{name}[{key!r}] is not a finite number"
            elif name != "result" and value is not None and value < 0:
                yield f"{name}[{key!r}] = {value} is negative"
    for key in record.result:
        if "/" not in key:
            yield f"result[{key!r}] is not the name of a metric, such as eval/loss"
    if (record.params.get("trainable_ratio") or 0) > 1:
        yield f"params['trainable_ratio'] = {record.params['trainable_ratio']} is above 1"


def _wrong_metrics(record: Record) -> Iterator[str]:
    try:
        of_plain(record.metrics)
    except (AttributeError, TypeError, ValueError) as error:
        yield f"metrics: {error}"


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number up to ``LARGEST``, not a boolean."""
    return _is_plain_number(value) and -LARGEST <= value <= LARGEST


def lacks_history(record: Record, folder: Path) -> bool:
    """Whether the history beside the record of a finished trial ends before the trial did."""
    try:
        with open_foreign(folder / HISTORY_FILE, LARGEST_HISTORY, links=False) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            return json.loads(file.read().splitlines()[-1])["step"] != record.last_step
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return True


def link_in(folder: Path) -> Path | None:
    """A symbolic link that is the folder of a trial or in it; no file of a trial is one."""
    try:
        return next((path for path in (folder, *folder.iterdir()) if path.is_symlink()), None)
    except (FileNotFoundError, NotADirectoryError):
        return None


def mixtures(records: Iterable[Record]) -> list[str]:
    """In which versions, devices and bases the trials of a sweep differ, a line for each; they should not.

    Bases are compared among the finished trials of one task on the same data.
    """
    values: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        for key in COMPARABLE:
            values[key, ""][str(record.environment.get(key))] += 1
        if record.finished:
            task = json.dumps([record.trial.get("task"), record.trial.get("data")], sort_keys=True)
            values["base", task][str(record.environment.get("base"))] += 1
    mixed = {key: counts for (key, _), counts in values.items() if len(counts) > 1}
    return [
        f"{key}: " + ", ".join(f"{value} ({counted(n, 'trial')})" for value, n in counts.items())
        for key, counts in mixed.items()
    ]


def finite(value: Any) -> Any:
    """The same value with None, which JSON can carry, in place of NaN, infinity and numbers above ``LARGEST``."""
    if isinstance(value, float):
        return value if -LARGEST <= value <= LARGEST else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def trial_folders(sweep_folder: Path) -> list[Path]:
    """The folders of a sweep's trials by name: those that have begun, and those that are still to begin.

    The folder of a trial that has not begun is known by the end of its name, the first digits of the trial's identity.
    """
    return [path for path in sorted(sweep_folder.iterdir()) if is_trial_folder(path)]


def is_trial_folder(path: Path) -> bool:
    """Whether ``path`` is the folder of a trial."""
    if path.name.startswith(".") or path.name in NOT_TRIALS or not path.is_dir():
        return False
    return has_begun(path) or ends_with_identity(path)


def ends_with_identity(folder: Path) -> bool:
    """Whether the name of ``folder`` ends as the label of a trial does: with eight digits of its identity."""
    return re.search(r"-[0-9a-f]{8}$", folder.name) is not None


def has_begun(folder: Path) -> bool:
    """Whether a trial has written something into ``folder``."""
    return any(_is_there(folder / name) for name in (RECORD_FILE, HISTORY_FILE, ".hydra"))


def _is_there(path: Path) -> bool:
    """Whether there is something at ``path``, or something that cannot be looked at."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys, such as ``adapter.rank``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
