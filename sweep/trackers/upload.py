"""Upload the W&B runs that a sweep has left on disk: each once and whole, those of killed processes too.

Works around three faults of ``wandb sync``. It never marks a file that ends in a torn record, as a killed process
leaves it, and appends all rows again the next time: the torn tail is cut off first. It marks a file as uploaded
although the server refused its rows: its output is searched for errors. It appends to the rows of an upload that
broke off: such a run is deleted on the server first, unless it is complete.
"""

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb

from sweep.trackers.wandb import ATTEMPT_BYTES
from sweep.wandb_log import DamagedError, TornError, records

OURS = re.compile(rf"run-[0-9a-f]{{16}}-[0-9a-f]{{{2 * ATTEMPT_BYTES}}}\.wandb")
POLL_S = 0.2
STALLED_S = 120.0
"""How long an upload may go on without finishing another run."""


def run_files(folder: Path) -> list[Path]:
    """The ``.wandb`` file of each trial of a sweep; not those of attempts that were set aside."""
    return sorted(file for file in folder.glob("wandb/*run-*/run-*.wandb") if OURS.fullmatch(file.name))


def trial_of(file: Path) -> str:
    """The identity of the trial whose run ``file`` holds."""
    return file.stem.removeprefix("run-").rpartition("-")[0]


def marker(file: Path) -> Path:
    """Wandb's marker file for an uploaded run."""
    return file.with_name(file.name + ".synced")


def upload(files: Sequence[Path], stalled_s: float = STALLED_S) -> str:
    """Upload ``files`` and return what wandb said; an uploaded file then has its ``marker``.

    A run that an earlier upload left incomplete on the server is deleted there and uploaded under another id.
    Gives up when no run was completed for ``stalled_s`` seconds.
    """
    whole, said = [], ""
    for file in files:
        try:
            if truncate_torn_tail(file):
                whole.append(file)
            else:  # no run was ever begun
                marker(file).touch()
        except DamagedError as error:
            said += f"{file}: {error}; all rows are in the history.jsonl of its trial\n"
    fresh = [file for file in whole if not _begun(file)]
    said += _sync(fresh, stalled_s) if fresh else ""
    for file in set(whole) - set(fresh):
        run = _run_on_server(file)
        if run is not None and _has_all_rows(run, file):
            marker(file).touch()
            continue
        if run is not None:
            run.delete()
        said += _sync([file], stalled_s, "--id", f"{trial_of(file)}-{secrets.token_hex(ATTEMPT_BYTES)}")
    return said


def truncate_torn_tail(file: Path) -> bool:
    """Cut off what is behind the last whole record of ``file``; False when it has none.

    Raises DamagedError, and leaves the file alone, when the bytes there were not torn by the end of a process.
    """
    end = 0
    with suppress(TornError):
        for _, position in records(file.read_bytes()):
            end = position
    if 0 < end < file.stat().st_size:
        os.truncate(file, end)
    return end > 0


def _begun(file: Path) -> bool:
    """Whether the server may have some of ``file``: the run was online, or an upload was begun."""
    return file.parent.name.startswith("run-") or file.with_name(file.name + ".syncstate").exists()


def _sync(files: Sequence[Path], stalled_s: float, *options: str) -> str:
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as output:
        line = [
            sys.executable,
            "-m",
            "wandb",
            "sync",
            "--include-online",
            *options,
            *(str(file.absolute()) for file in files),
        ]
        environment = os.environ | {"WANDB_DIR": elsewhere}
        process = subprocess.Popen(line, cwd=elsewhere, env=environment, stdout=output, stderr=subprocess.STDOUT)
        done, latest = 0, time.monotonic() + stalled_s
        try:
            while process.poll() is None and time.monotonic() < latest:
                time.sleep(POLL_S)
                if (now := sum(marker(file).exists() for file in files)) > done:
                    done, latest = now, time.monotonic() + stalled_s
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    for file in files:
        if re.search(rf"ERROR.*{re.escape(file.stem.removeprefix('run-'))}", said):
            marker(file).unlink(missing_ok=True)
    return said


def _run_on_server(file: Path) -> Any | None:
    """The run that ``file`` holds, as the server has it; None where it has none."""
    run = next(record.run for record in _messages(file) if record.HasField("run"))
    api = wandb.Api()
    try:
        return api.run(f"{run.entity or api.default_entity}/{run.project}/{run.run_id}")
    except (wandb.errors.CommError, ValueError) as error:
        if "not find" in str(error):
            return None
        raise


def _has_all_rows(run: Any, file: Path) -> bool:
    """Whether the server has closed ``run`` and has every history row of ``file``."""
    rows = sum(record.HasField("history") for record in _messages(file))
    return bool(run.state != "running" and run.lastHistoryStep >= rows - 1)


def _messages(file: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    return [Record.FromString(message) for message, _ in records(file.read_bytes())]
