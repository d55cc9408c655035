"""The framing of ``.wandb`` files, and the names that a run of ours has at W&B.

A file is a 7-byte header and then a LevelDB log: blocks of 32 KiB holding chunks of (CRC-32 of type and data, length,
type, data). A record is one chunk or several, and holds one protobuf message of wandb's own schema, which has no
public reader (wandb 0.31).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

RESULT = "result/"
"""Prefix of a record's metrics in a run's summary: their own names hold the best and the last logged value."""
SUPERSEDED = "superseded"
"""Subfolder of ``wandb/`` for the files of earlier attempts at a trial."""

HEADER = struct.Struct("<4sHB")
MAGIC = (b":W&B", 0xBEE1)
CHUNK = struct.Struct("<IHB")
BLOCK_BYTES = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class TornError(ValueError):
    """The file ends inside a record, as a killed process leaves it."""


class DamagedError(ValueError):
    """The bytes at ``position`` are not what wandb has written; 0 stands for a header of something else."""

    def __init__(self, position: int):
        self.position = position
        super().__init__(f"damaged at byte {position:,}")


def records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Each whole record of a ``.wandb`` file and the position behind it.

    Raises TornError or DamagedError behind the last record that is whole, where the file goes on.
    """
    if len(content) < HEADER.size:
        raise TornError("the header is torn")
    if HEADER.unpack_from(content)[:2] != MAGIC:
        raise DamagedError(0)
    position, parts = HEADER.size, list[bytes]()
    while True:
        left_in_block = BLOCK_BYTES - position % BLOCK_BYTES
        position += left_in_block if left_in_block < CHUNK.size else 0
        if position >= len(content):
            break
        kind, data = _chunk(content, position)
        position += CHUNK.size + len(data)
        if kind in (FULL, FIRST):
            parts = []
        parts.append(data)
        if kind in (FULL, LAST):
            yield b"".join(parts), position
            parts = []
    if parts:
        raise TornError("the last record is torn")


def framed(messages: Iterable[bytes]) -> bytes:
    """The ``.wandb`` file that holds these records."""
    content = bytearray(HEADER.pack(*MAGIC, 0))
    for message in messages:
        first = True
        while first or message:
            if (left := BLOCK_BYTES - len(content) % BLOCK_BYTES) < CHUNK.size:
                content += bytes(left)
                left = BLOCK_BYTES
            data, message = message[: left - CHUNK.size], message[left - CHUNK.size :]
            kind = (LAST if not message else MIDDLE) if not first else (FIRST if message else FULL)
            content += CHUNK.pack(zlib.crc32(data, zlib.crc32(bytes([kind]))), len(data), kind) + data
            first = False
    return bytes(content)


def _chunk(content: bytes, position: int) -> tuple[int, bytes]:
    """Type and data of the chunk at ``position``."""
    start = position + CHUNK.size
    if start > len(content):
        raise TornError("the last chunk is torn")
    checksum, length, kind = CHUNK.unpack_from(content, position)
    data = content[start : start + length]
    if len(data) < length:
        raise TornError("the last chunk is torn")
    if kind not in (FULL, FIRST, MIDDLE, LAST) or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
        raise DamagedError(position)
    return kind, data
