"""Upload the W&B runs that a sweep has left on disk: each once and whole, those of killed processes too.

A sweep's folder may come from elsewhere. What is handed to ``wandb sync`` is a copy of a run, alone in a folder of ours,
with the records that a trial leaves and no others: no files, no artifacts. It goes where the user says.

Works around three faults of ``wandb sync``. It never marks a file that ends in a torn record, as a killed process
leaves it, and appends all rows again the next time: the copy ends before the torn tail. It marks a file as uploaded
although the server refused its rows: its output is searched for errors. It appends to the rows of an upload that
broke off: such a run is deleted on the server first, unless it is complete.
"""

import os
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from sweep.files import read_foreign, replace_file
from sweep.trackers.wandb import ATTEMPT_BYTES, PROJECT, SAMPLES
from sweep.wandb_log import TornError, framed, records

OURS = re.compile(rf"run-[0-9a-f]{{16}}-[0-9a-f]{{{2 * ATTEMPT_BYTES}}}\.wandb")
UPLOADED = ("header", "run", "config", "summary", "history", "metric", "telemetry", "exit", "footer")
"""The records that are uploaded; any other could name a file of this machine."""
OF_RUN = (
    "config",
    "summary",
    "run_group",
    "job_type",
    "display_name",
    "notes",
    "tags",
    "host",
    "start_time",
    "telemetry",
)
"""What is taken over of the record that begins a run, besides its id."""
LARGEST = 256 << 20
"""Largest ``.wandb`` file that is uploaded, in bytes."""
POLL_S = 0.2
STALLED_S = 120.0
"""How long an upload may go on without finishing another run."""


@dataclass(frozen=True)
class Destination:
    """Where runs go. Unless the user has said so (``explicit``), only runs that name this very place go there."""

    entity: str
    project: str
    explicit: bool = False

    def refusal(self, run: Any) -> str:
        """Why ``run``, the record that begins a run, does not go here; an empty string where it does."""
        named = f"{run.entity or self.entity}/{run.project or self.project}"
        if self.explicit or named == f"{self.entity}/{self.project}":
            return ""
        return f"it says that it belongs to {named}; --entity and --project say where it goes"


@contextmanager
def own_settings() -> Iterator[None]:
    """Inside the block, W&B takes no settings from ``wandb/`` of the working directory, which may be a sweep's folder."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as elsewhere:
        os.environ["WANDB_DIR"] = elsewhere
        try:
            yield
        finally:
            del os.environ["WANDB_DIR"]
            if before is not None:
                os.environ["WANDB_DIR"] = before


def destination(entity: str | None, project: str | None) -> Destination:
    """Where the user's runs go: what the command says, or W&B's settings, or where a sweep sends them by default."""
    settings = wandb.setup().settings
    return Destination(
        entity or settings.entity or wandb.Api().default_entity or "",
        project or settings.project or PROJECT,
        explicit=entity is not None or project is not None,
    )


def run_files(folder: Path) -> list[Path]:
    """The ``.wandb`` file of each trial of a sweep; not those of attempts that were set aside, and no links."""
    if (folder / "wandb").is_symlink():
        return []
    files = [file for file in folder.glob("wandb/*run-*/run-*.wandb") if OURS.fullmatch(file.name)]
    return sorted(file for file in files if not file.parent.is_symlink() and stat.S_ISREG(file.lstat().st_mode))


def trial_of(file: Path) -> str:
    """The identity of the trial whose run ``file`` holds."""
    return _run_id(file).rpartition("-")[0]


def marker(file: Path) -> Path:
    """Wandb's marker file for an uploaded run."""
    return file.with_name(file.name + ".synced")


def upload(files: Sequence[Path], goal: Destination, stalled_s: float = STALLED_S) -> str:
    """Upload ``files`` and return what wandb said; an uploaded file then has its ``marker``.

    A run that an earlier upload left incomplete on the server is deleted there and uploaded under another id.
    Gives up when no run was completed for ``stalled_s`` seconds.
    """
    runs: dict[Path, list[Any]] = {}
    said = ""
    for file in files:
        try:
            content = messages(file)
        except ValueError as error:
            said += f"{file}: {error}; all rows are in the history.jsonl of its trial\n"
            continue
        begins = next((one.run for one in content if one.HasField("run")), None)
        if begins is None:  # no run was ever begun
            replace_file(marker(file), b"")
        elif refusal := goal.refusal(begins):
            said += f"{file}: {refusal}\n"
        else:
            runs[file] = content
    copies: dict[Path, bytes] = {}
    for file, content in runs.items():
        run_id = _run_id(file)
        if _begun(file):
            run = _run_on_server(file, goal)
            if run is not None and _has_all_rows(run, content):
                replace_file(marker(file), b"")
                continue
            if run is not None:
                run.delete()
            run_id = f"{trial_of(file)}-{secrets.token_hex(ATTEMPT_BYTES)}"
        copies[file] = copied(content, goal, run_id)
    return said + (_sync(copies, stalled_s) if copies else "")


def messages(file: Path) -> list[Any]:
    """The whole records of ``file``. Raises ValueError for bytes that were not torn by the end of a process."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content = []
    try:
        with suppress(TornError):
            for message, _ in records(read_foreign(file, LARGEST, links=False)):
                content.append(Record.FromString(message))
    except DecodeError as error:
        raise ValueError(f"not a .wandb file ({error})") from None
    except OSError as error:
        raise ValueError(error.strerror) from None
    return content


def copied(content: Sequence[Any], goal: Destination, run_id: str) -> bytes:
    """The ``.wandb`` file of a run with nothing but what a trial leaves, for this place and under this id."""
    kept = []
    for one in content:
        if one.WhichOneof("record_type") not in UPLOADED:
            continue
        copy = type(one)()
        copy.CopyFrom(one)
        if copy.HasField("run"):
            for name, _ in one.run.ListFields():
                if name.name not in OF_RUN:
                    copy.run.ClearField(name.name)
            copy.run.entity, copy.run.project, copy.run.run_id = goal.entity, goal.project, run_id
        for kind, items in (("history", copy.history.item), ("summary", copy.summary.update)):
            if copy.HasField(kind):
                own = [item for item in items if (*item.nested_key, item.key)[0] != SAMPLES]  # its file stays here
                del items[:]
                items.extend(own)
        kept.append(copy.SerializeToString())
    return framed(kept)


def _run_id(file: Path) -> str:
    return file.stem.removeprefix("run-")


def _begun_marker(file: Path) -> Path:
    return file.with_name(file.name + ".begun")


def _begun(file: Path) -> bool:
    """Whether the server may have some of ``file``: the run was online, or an upload was begun, by wandb itself or here."""
    markers = (file.with_name(file.name + ".syncstate"), _begun_marker(file))
    return file.parent.name.startswith("run-") or any(path.exists() for path in markers)


def _sync(copies: Mapping[Path, bytes], stalled_s: float) -> str:
    """Upload the copy of each file, and give the file its marker where that went well; returns what wandb said."""
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as output:
        placed = {}
        for file, content in copies.items():
            placed[file] = Path(elsewhere, "runs", f"offline-{file.stem}", file.name)
            placed[file].parent.mkdir(parents=True)
            placed[file].write_bytes(content)
            replace_file(_begun_marker(file), b"")
        line = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, placed.values())]
        environment = os.environ | {"WANDB_DIR": elsewhere}
        process = subprocess.Popen(line, cwd=elsewhere, env=environment, stdout=output, stderr=subprocess.STDOUT)
        done, latest = 0, time.monotonic() + stalled_s
        try:
            while process.poll() is None and time.monotonic() < latest:
                time.sleep(POLL_S)
                if (now := sum(marker(copy).exists() for copy in placed.values())) > done:
                    done, latest = now, time.monotonic() + stalled_s
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
        for file, copy in placed.items():
            if marker(copy).exists() and not re.search(rf"ERROR.*{re.escape(_run_id(file))}", said):
                replace_file(marker(file), b"")
    return said


def _run_on_server(file: Path, goal: Destination) -> Any | None:
    """The run that ``file`` holds, as the server has it; None where it has none."""
    try:
        return wandb.Api().run(f"{goal.entity}/{goal.project}/{_run_id(file)}")
    except (wandb.errors.CommError, ValueError) as error:
        if "not find" in str(error):
            return None
        raise


def _has_all_rows(run: Any, content: Sequence[Any]) -> bool:
    """Whether the server has closed ``run`` and has every history row of these records."""
    rows = sum(one.HasField("history") for one in content)
    return bool(run.state != "running" and run.lastHistoryStep >= rows - 1)
