"""Files of rows in every format, and what is said of those that cannot be read."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from sweep.errors import ConfigError
from sweep.tasks.causal_lm.rows import Answer, Chat, Passage, Row, read, verses

RECORDS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": "One."}, {"text": "Two,\nand more."}],
    "answers": [{"prompt": "Who?", "completion": " God."}, {"prompt": "When?\u2028", "completion": ' "At first."'}],
    "chats": [
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "God."}]},
        {
            "messages": [
                {"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")
            ]
        },
    ],
}
ROWS: dict[str, tuple[Row, ...]] = {
    "text": (Passage("One."), Passage("Two,\nand more.")),
    "answers": (Answer("Who?", " God."), Answer("When?\u2028", ' "At first."')),
    "chats": (
        Chat((("user", "Who?"), ("assistant", "God."))),
        Chat(tuple((role, role) for role in ("system", "user", "assistant", "user", "assistant"))),
    ),
}


def write(records: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n\n" for record in records))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".parquet":
        pd.DataFrame(records).to_parquet(path)
    else:
        datasets = pytest.importorskip("datasets")
        table = pa.Table.from_pylist(records)
        datasets.Dataset(table, fingerprint="given").save_to_disk(
            path
        )  # datasets 5.2 fails to hash what pyarrow 26 made
    return path


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "saved"])
def test_rows_are_the_same_from_every_format(kind: str, name: str, tmp_path: Path) -> None:
    if (kind, name) != ("chats", "rows.csv"):
        assert read(str(write(RECORDS[kind], tmp_path / name)), "task.target_text") == ROWS[kind]


def test_rows_of_a_text_file_are_one_passage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.")
    assert read(str(tmp_path / "a.txt"), "task.target_text") == (Passage("One.\n\nTwo."),)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.jsonl",
            '{"text": "a"}\n{"content": "a"}\n',
            'line 2 is none of {"text": …}, {"prompt": …, "completion": …} or {"messages": [{"role": …, "content": …}, …]}',
        ),
        (
            "b.jsonl",
            '{"text": "a"}\n\n{"prompt": "a", "completion": "b"}\n',
            "line 3 is of another kind than the first row (answer among passages); all are expected to be one of {",
        ),
        ("c.jsonl", "text\n", "line 1 is not JSON (Expecting value: line 1 column 1 (char 0)); expected is {"),
        (
            "d.jsonl",
            '{"messages": [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}]}',
            'line 1 is a chat without a turn of the role "assistant"',
        ),
        ("e.jsonl", '{"messages": [{"role": "assistant", "content": null}]}', "line 1 is none of {"),
        ("f.jsonl", '{"text": "a", "prompt": "a", "completion": "b"}', "line 1 is more than one of {"),
        ("g.jsonl", "", "holds no rows"),
        (
            "h.csv",
            "prompt,completion\na,b\nc\n",
            "line 3 is not CSV: it has more or fewer fields than the first line names",
        ),
        ("i.csv", "question,answer\na,b\n", "line 2 is none of {"),
        ("j.parquet", "text", "not a Parquet file ("),
    ],
)
def test_rows_that_cannot_be_read_are_one_message(
    name: str, content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content)
    read.cache_clear()
    with pytest.raises(ConfigError) as caught:
        read(name, "task.target_text")
    [fault] = caught.value.faults
    assert fault.startswith(f"task.target_text = '{name}': {says}")


def test_rows_of_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ConfigError, match=r"a\.jsonl': not a UTF-8 text"):
        read(str(tmp_path / "a.jsonl"), "task.target_text")
    with pytest.raises(ConfigError, match=r"nowhere\.csv': No such file or directory"):
        read(str(tmp_path / "nowhere.csv"), "task.target_text")


def test_verses_are_aligned_and_held_out_by_chapter() -> None:
    train, _, held_out = verses(withholds=False)
    assert len(train) + len(held_out) == 30_238
    assert len(held_out) == 2_976
    first = train[0]
    assert isinstance(first, Chat)
    assert [role for role, _ in first.messages] == ["system", "user", "assistant"]
    assert [content for _, content in first.messages[1:]] == [
        "In the beginning God created the heavens and the earth.",
        "In the bigynnyng God made of nouyt heuene and erthe.",
    ]
    chapter_ten = "Now this is the history of the generations of the sons of Noah"
    first = held_out[0]
    assert isinstance(first, Chat)
    assert first.messages[1][1].startswith(chapter_ten)


def test_verses_for_validation_are_the_chapters_before_those_held_out() -> None:
    whole, _, held_out = verses(withholds=False)
    train, validation, still_held_out = verses(withholds=True)
    assert still_held_out == held_out
    assert len(train) + len(validation) == len(whole)
    assert set(train) | set(validation) == set(whole)
    chapter_nine = "God blessed Noah and his sons"
    first = validation[0]
    assert isinstance(first, Chat)
    assert first.messages[1][1].startswith(chapter_nine)


def test_read_of_a_folder_needs_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"a folder needs Hugging Face's datasets; install it with: pip install"):
        read(str(tmp_path), "task.target_text")


def test_read_refuses_a_folder_that_is_not_one_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(ConfigError, match="not a folder that save_to_disk of datasets has written"):
        read(str(tmp_path), "task.target_text")
    rows = datasets.Dataset(pa.Table.from_pylist(RECORDS["text"]), fingerprint="given")
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both")
    with pytest.raises(ConfigError, match=r"holds several data sets \(train, test\); give the folder of one"):
        read(str(tmp_path / "both"), "task.target_text")
