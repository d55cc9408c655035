"""Reading files from untrusted sources, and writing files that never appear half written."""

import errno
import os
import secrets
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_foreign(path: Path, largest: int, *, links: bool = True) -> BufferedReader:
    """Open an untrusted regular file for reading; never wait for a pipe or a device.

    Args:
        path: the file.
        largest: its largest size, in bytes.
        links: whether ``path`` itself may be a symbolic link.

    Raises:
        OSError: there is no such file, it is something else or too large; ``strerror`` says which.

    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError:
        raise OSError(errno.EINVAL, "not a valid path", str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP and not links:
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from None
        if error.errno == errno.ENXIO:  # a socket cannot be opened at all
            raise OSError(errno.EINVAL, "is not a regular file", str(path)) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS[stat.S_IFMT(status.st_mode)]
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
        if status.st_size > largest:
            reason = f"has {status.st_size:,} bytes; at most {largest:,} are read"
            raise OSError(errno.EFBIG, reason, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_foreign(path: Path, largest: int, *, links: bool = True) -> bytes:
    """The content of an untrusted regular file; arguments and errors are those of ``open_foreign``."""
    blocks, size = [], 0
    with open_foreign(path, largest, links=links) as file:
        # a file may grow, and those of /proc have no size; reading ``largest`` at once takes that much memory first
        while size <= largest and (block := file.read(BLOCK)):
            blocks.append(block)
            size += len(block)
    if size > largest:
        raise OSError(errno.EFBIG, f"has more than {largest:,} bytes", str(path))
    return b"".join(blocks)


def append_to(path: Path, *, create: bool = False) -> BinaryIO:
    """Open a regular file to add to its end; no link is followed, and no pipe is waited for.

    Raises OSError where there is none and ``create`` is false, or where it is something else.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_CREAT if create else 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(descriptor, "ab")


def start_file(path: Path) -> None:
    """Put an empty new file at ``path``, in place of whatever file or link is there."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.touch(exist_ok=False)
    temporary.replace(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there. Raises OSError where it is a symbolic link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link, and nothing is written through it", str(path))
    path.mkdir(parents=True, exist_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name, flush it to disk, and rename it to ``path``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
