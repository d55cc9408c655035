"""Files that somebody else may have made: regular ones of a bounded size are read, everything else is refused at once."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.files import append_to, open_foreign, read_foreign, replace_file
from tests.support.damage import a_device, a_folder, a_hole, a_pipe


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def one_byte_too_many(path: Path) -> None:
    path.write_bytes(b"x" * 11)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_pipe, "is a named pipe, not a regular file"),
        (a_folder, "is a folder, not a regular file"),
        (a_device, "is a device, not a regular file"),
        (a_socket, "is not a regular file"),
        (a_hole, "has 5,368,709,120 bytes; at most 10 are read"),
        (one_byte_too_many, "has 11 bytes; at most 10 are read"),
        (a_loop, "Too many levels of symbolic links"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_read_foreign_refuses_what_is_no_small_regular_file(
    make: Callable[[Path], None], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given"
    make(path)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=re.escape(says)) as refused:
        read_foreign(path, 10)
    assert (refused.value.strerror, refused.value.filename) == (says, str(path))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_read_foreign_reads_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"0123456789")
    assert read_foreign(path, 10) == b"0123456789"
    with open_foreign(path, 10) as file:
        assert file.read(4) == b"0123"


def test_read_foreign_bounds_what_has_no_size() -> None:
    with pytest.raises(OSError, match="has more than 10 bytes"):
        read_foreign(Path("/proc/self/status"), 10)


def test_read_foreign_follows_links_only_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "private").write_bytes(b"key")
    (tmp_path / "link").symlink_to("private")
    assert read_foreign(tmp_path / "link", 10) == b"key"
    with pytest.raises(OSError, match="is a symbolic link"):
        read_foreign(tmp_path / "link", 10, links=False)
    assert read_foreign(tmp_path / "private", 10, links=False) == b"key"


@pytest.mark.parametrize("path", ["a\0b", "\udcff\ud800"])
def test_read_foreign_refuses_what_is_no_path(path: str) -> None:
    with pytest.raises(OSError, match="not a valid path"):
        read_foreign(Path(path), 10)


def test_replace_file_leaves_the_old_content_or_the_new_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        replace_file(path, "text")  # type: ignore[arg-type]
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])


def test_append_to_refuses_a_named_pipe_that_somebody_reads(tmp_path: Path) -> None:
    a_pipe(tmp_path / "history.jsonl")
    reader = os.open(tmp_path / "history.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="is not a regular file"):
            append_to(tmp_path / "history.jsonl")
    finally:
        os.close(reader)
