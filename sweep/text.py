"""Text for people: tables, printable characters, no secrets, and how a command exits."""

import io
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Endings of the names of environment variables whose values are never shown."""
SHORTEST_SECRET = 8
"""Shortest value that is masked, in characters; shorter ones occur in ordinary text."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, pad: bool = True) -> str:
    """A Markdown table: the first ``left`` columns aligned to the left, the others to the right.

    ``pad`` aligns them in the text, too, for a terminal.
    """
    if not pad:
        rule = "".join("|:---" if column < left else "|---:" for column in range(len(header))) + "|"
        return "\n".join([_line(header), rule, *map(_line, rows)])
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        return _line(
            [
                cell.ljust(width) if column < left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
        )

    rule = _line([":" + "-" * (w - 1) if column < left else "-" * (w - 1) + ":" for column, w in enumerate(widths)])
    return "\n".join([padded(header), rule, *map(padded, lines[1:])])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``3 trials``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def named(items: Sequence[str], limit: int = 5) -> str:
    """The first few of ``items`` and how many more there are."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def printable(text: str) -> str:
    """The same text for a terminal, a page or a table: invisible characters become escapes, such as x1b."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def masked(text: str) -> str:
    """The same text with the names of environment variables that hold secrets in place of their values."""
    secrets = {value: name for name, value in os.environ.items() if name.upper().endswith(SECRET_NAMES)}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"${secrets[value]}")
    return text


def without_home(text: str) -> str:
    """The same text with ``~`` in place of the user's home folder."""
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)


def failure(error: BaseException) -> dict[str, str]:
    """``type``, ``message`` and ``traceback`` of an error for a record, which others read.

    Secrets are masked; files are named relative to the project or to the folder where packages are installed.
    """
    trace = "".join(traceback.format_exception(error))
    for folder in sorted({str(Path(path).absolute()) for path in sys.path}, key=len, reverse=True):
        trace = trace.replace(f'File "{folder}{os.sep}', 'File "')
    return {
        "type": type(error).__name__,
        "message": without_home(masked(str(error))),
        "traceback": without_home(masked(trace)),
    }


def reason(error: Exception) -> str:
    """What an error says; of an OSError without its number and the name of its file."""
    return getattr(error, "strerror", None) or str(error)


def for_terminal(text: str) -> str:
    """The same text with its line breaks, without secrets, and printable."""
    return "\n".join(printable(line) for line in masked(text).split("\n"))


def say(text: str, file: TextIO | None = None) -> None:
    """Print ``text`` in a form that is safe for a terminal."""
    print(for_terminal(text), file=file)


class PrintableRecord(logging.LogRecord):
    """A log record whose message is safe for a terminal."""

    def getMessage(self) -> str:  # noqa: N802
        """The message with its arguments."""
        return for_terminal(super().getMessage())


def run_command(command: Callable[[], int | None], name: str) -> None:
    """Run a command line and exit as other Unix tools do, whatever becomes of its output.

    Characters that the terminal's encoding lacks are escaped. Where a reader closes the pipe of its log, the command goes
    on, and its exit code is that of SIGPIPE; where the output cannot be written, it is 1, with a message that begins
    with ``name``.
    """
    unwritten: list[OSError] = []

    def remember(_handler: logging.Handler, _record: logging.LogRecord) -> None:
        if isinstance(error := sys.exception(), OSError):
            unwritten.append(error)

    logging.setLogRecordFactory(PrintableRecord)
    logging.Handler.handleError = remember  # type: ignore[assignment,method-assign]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    code: Any = None
    try:
        try:
            code = command()
        except SystemExit as ended:
            code = ended.code
        if sys.stdout:
            sys.stdout.flush()
        if unwritten:
            raise unwritten[0]
    except OSError as error:
        if error.filename is not None:  # of some other file
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try it again at its end
        broken = isinstance(error, BrokenPipeError)
        code = 128 + signal.SIGPIPE if broken else f"{name}: standard output: {error.strerror}"
    if code is not None:
        sys.exit(code)
