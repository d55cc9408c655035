"""The framing of ``.wandb`` files against hand-made ones."""

import struct
import zlib

import pytest

from sweep.wandb_log import BLOCK_BYTES, DamagedError, TornError, records

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)


def chunk(data: bytes, kind: int = 1) -> bytes:
    return struct.pack("<IHB", zlib.crc32(data, zlib.crc32(bytes([kind]))), len(data), kind) + data


def test_records_are_whole_and_followed_by_their_end():
    assert list(records(HEADER)) == []
    assert list(records(HEADER + chunk(b"abc") + chunk(b"de"))) == [(b"abc", 17), (b"de", 26)]
    assert list(records(HEADER + chunk(b"ab", 2) + chunk(b"cd", 3) + chunk(b"e", 4))) == [(b"abcde", 33)]


def test_records_skip_a_block_tail_that_holds_no_chunk():
    first = chunk(bytes(BLOCK_BYTES - 7 - 7 - 6))
    assert [end for _, end in records(HEADER + first + bytes(6) + chunk(b"x"))] == [BLOCK_BYTES - 6, BLOCK_BYTES + 8]


@pytest.mark.parametrize("content", [b":W", HEADER + chunk(b"abc")[:-1], HEADER + b"\0", HEADER + chunk(b"ab", 2)])
def test_records_of_a_torn_file(content: bytes):
    with pytest.raises(TornError):
        list(records(content))


@pytest.mark.parametrize(
    ("content", "position"),
    [(b"PK\3\4 else", 0), (HEADER + chunk(b"abc") + b"\0" + chunk(b"de")[1:], 17), (HEADER + chunk(b"a", 9), 7)],
)
def test_records_of_a_damaged_file_say_where(content: bytes, position: int):
    with pytest.raises(DamagedError) as caught:
        list(records(content))
    assert caught.value.position == position
