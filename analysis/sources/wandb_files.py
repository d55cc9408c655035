"""Reads the ``.wandb`` files that W&B leaves on disk, without a server.

A killed process leaves a file with a torn tail; every record before it is read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.sources.walk import files_below
from sweep import wandb_log
from sweep.files import read_foreign
from sweep.record import MOST_KEYS, too_large

LARGEST = 256 << 20
"""Largest file that is read, in bytes; a run of ours has some ten KB."""
NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass
class WandbRun:
    """What one ``.wandb`` file holds.

    ``history`` has one dict per logged row, in order. Keys that W&B adds for itself (``_step``,
    ``_timestamp``, ``_wandb``, …) are left out everywhere. ``exit_code`` is None for a run that was never
    finished; ``truncated`` says that the file ends in the middle of a record.
    """

    id: str
    name: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    truncated: bool = False


def run_files(folder: Path) -> list[Path]:
    """The ``.wandb`` files below ``folder``, in the order of their names, without set-aside attempts (``superseded/``)."""
    return files_below(folder, lambda name: name.endswith(".wandb"), wandb_log.SUPERSEDED)


def read_run(path: Path) -> WandbRun:
    """Read one ``.wandb`` file.

    Raises ValueError, naming the file, when it is something else, or holds what no run of a trial does.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record as Message  # type: ignore[attr-defined]

    run = WandbRun(id=path.stem.removeprefix("run-"))
    try:
        for message, _ in wandb_log.records(read_foreign(path, LARGEST, links=False)):
            _apply(Message.FromString(message), run)
    except (wandb_log.TornError, wandb_log.DamagedError) as error:
        if isinstance(error, wandb_log.DamagedError) and error.position == 0:
            raise ValueError(f"{path} is not a .wandb file") from None
        run.truncated = True
    except OSError as error:
        raise ValueError(f"{path} is not a .wandb file ({error.strerror})") from None
    except (DecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a .wandb file ({error})") from None
    fault = too_large(run.config) or too_large(run.summary)
    if fault or len({key for row in run.history for key in row}) > MOST_KEYS:
        raise ValueError(f"{path} is left out ({fault or f'its history has more than {MOST_KEYS:,} keys'})")
    return without_bookkeeping(run)


def without_bookkeeping(run: WandbRun) -> WandbRun:
    """The same run without the keys that W&B adds for itself; a row that its program gave no ``step`` has W&B's own."""
    for row in run.history:
        if "_step" in row:
            row.setdefault("step", row["_step"])
    for values in (run.config, run.summary, *run.history):
        for key in [key for key in values if key.startswith("_")]:
            del values[key]
    return run


def _apply(record: Any, run: WandbRun) -> None:
    """Add what one record says to ``run``."""
    match record.WhichOneof("record_type"):
        case "run":
            run.id, run.name, run.group = record.run.run_id, record.run.display_name, record.run.run_group
            _update(run.config, record.run.config.update)
        case "config":
            _update(run.config, record.config.update)
        case "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.history.append(row)
        case "summary":
            _update(run.summary, record.summary.update)
        case "exit":
            run.exit_code = record.exit.exit_code


def _update(target: dict[str, Any], items: Iterable[Any]) -> None:
    """Set each item's value in ``target``; a nested key (eval/loss, then min) makes nested dicts."""
    for item in items:
        *parents, key = item.nested_key or [item.key]
        inner = target
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        inner[key] = _value(item.value_json)


def _value(text: str) -> Any:
    """The decoded value; W&B writes NaN and infinities as JSON strings."""
    value = json.loads(text)
    return NON_FINITE.get(value, value) if isinstance(value, str) else value
