"""Reading files that somebody else may have made, and writing files of which nobody ever sees half."""

import errno
import os
import secrets
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_foreign(path: Path, largest: int, *, links: bool = True) -> BufferedReader:
    """Open a regular file that somebody else may have made for reading; never wait for a pipe or a device.

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
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS[stat.S_IFMT(found.st_mode)]
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
        if found.st_size > largest:
            reason = f"has {found.st_size:,} bytes; at most {largest:,} are read"
            raise OSError(errno.EFBIG, reason, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_foreign(path: Path, largest: int, *, links: bool = True) -> bytes:
    """The content of a regular file that somebody else may have made; arguments and errors of ``open_foreign``."""
    with open_foreign(path, largest, links=links) as file:
        content = file.read(largest + 1)  # a file may grow, and those of /proc have no size
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"has more than {largest:,} bytes", str(path))
    return content


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
