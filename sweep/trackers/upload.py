"""Upload the W&B runs that a sweep has left on disk: each once and whole, those of killed processes too.

``wandb sync`` uploads; here is what it leaves to do. It never marks a file that ends in a torn record, as a
killed process leaves it, and appends all rows again the next time: the torn end is cut off before. It marks a
file as uploaded although the server refused its rows: what it said is read. It appends to what an earlier
upload has sent before it broke off: that part is withdrawn first, unless it is all there.
"""

import os
import re
import secrets
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import wandb

from sweep.trackers.wandb import ATTEMPT_BYTES

HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
CHUNK = struct.Struct("<IHB")
FULL, LAST = 1, 4
OURS = re.compile(rf"run-[0-9a-f]{{16}}-[0-9a-f]{{{2 * ATTEMPT_BYTES}}}\.wandb")
POLL_S = 0.2
STALLED_S = 120.0
"""How long an upload may go on without finishing another run."""


class DamagedError(ValueError):
    """A file is not as wandb has written it, before its end."""


def run_files(folder: Path) -> list[Path]:
    """The ``.wandb`` file of each trial of a sweep; not those of attempts that were set aside."""
    return sorted(file for file in folder.glob("wandb/*run-*/run-*.wandb") if OURS.fullmatch(file.name))


def trial_of(file: Path) -> str:
    """The identity of the trial whose run ``file`` holds."""
    return file.stem.removeprefix("run-").rpartition("-")[0]


def marker(file: Path) -> Path:
    """The file beside ``file`` by which wandb tells that it is uploaded."""
    return file.with_name(file.name + ".synced")


def upload(files: Sequence[Path], stalled_s: float = STALLED_S) -> str:
    """Upload ``files`` and return what wandb said; what is uploaded then has its ``marker``.

    Gives up when no run was completed for ``stalled_s`` seconds.
    """
    whole, said = [], ""
    for file in files:
        try:
            if mend(file):
                whole.append(file)
            else:  # no run was ever begun
                marker(file).touch()
        except DamagedError as error:
            said += f"{file}: {error}; all rows are in the history.jsonl of its trial\n"
    fresh = [file for file in whole if not _begun(file)]
    said += _sync(fresh, stalled_s) if fresh else ""
    for file in set(whole) - set(fresh):
        if _is_there(file):
            marker(file).touch()
        else:
            said += _sync([file], stalled_s, "--id", f"{trial_of(file)}-{secrets.token_hex(ATTEMPT_BYTES)}")
    return said


def mend(file: Path) -> bool:
    """Cut off what is behind the last whole record of ``file``; False when it has none.

    Raises DamagedError, and leaves the file alone, when what is behind it was not torn by the end of a process.
    """
    ends = [end for _, end in _records(file.read_bytes())]
    if ends and ends[-1] < file.stat().st_size:
        os.truncate(file, ends[-1])
    return bool(ends)


def _begun(file: Path) -> bool:
    """Whether the server may have some of ``file``: the run was online, or an upload was begun."""
    return file.parent.name.startswith("run-") or file.with_name(file.name + ".syncstate").exists()


def _sync(files: Sequence[Path], stalled_s: float, *options: str) -> str:
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as output:
        line = [sys.executable, "-m", "wandb", "sync", "--include-online", *options, *(str(file.absolute()) for file in files)]  # fmt: skip
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


def _is_there(file: Path) -> bool:
    """Whether the server has all of ``file``; if it has a part, that is deleted."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    records = [Record.FromString(message) for message, _ in _records(file.read_bytes())]
    run = next(record.run for record in records if record.HasField("run"))
    api = wandb.Api()
    try:
        found = api.run(f"{run.entity or api.default_entity}/{run.project}/{run.run_id}")
    except (wandb.errors.CommError, ValueError) as error:
        if "not find" in str(error):
            return False
        raise
    rows = sum(record.HasField("history") for record in records)
    if found.state != "running" and found.lastHistoryStep >= rows - 1:
        return True
    found.delete()
    return False


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Each whole record of a ``.wandb`` file and the position behind it.

    After the header it is a LevelDB log: blocks of 32 KiB with chunks of (CRC-32 of type and data, length,
    type, data), of which a record has one or several.
    Raises DamagedError where a chunk is not what was written.
    """
    position, parts = HEADER_BYTES, []
    while True:
        left_in_block = BLOCK_BYTES - position % BLOCK_BYTES
        position += left_in_block if left_in_block < CHUNK.size else 0
        start = position + CHUNK.size
        if start > len(content):
            return
        checksum, length, kind = CHUNK.unpack_from(content, position)
        data = content[start : start + length]
        if len(data) < length:
            return
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise DamagedError(f"damaged at byte {position:,}")
        position = start + length
        parts.append(data)
        if kind in (FULL, LAST):
            yield b"".join(parts), position
            parts = []
