"""What is read and written around W&B's files, without a run of wandb's own."""

import os
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

import analysis
from sweep.trackers import upload
from sweep.trackers.upload import Destination, marker, messages, own_settings
from sweep.trackers.wandb import refuse_links
from sweep.wandb_log import framed
from tests.support.loopback_wandb import LoopbackWandb

NAME = "run-0123456789abcdef-012345.wandb"


def run_of(**settings: str) -> list[Any]:
    """The records of a run that has finished: its configuration, its loss, and its end."""
    begins, summary, ends = Record(), Record(), Record()
    begins.run.run_id, begins.run.project = "0123456789abcdef-012345", "p"
    for key, value in settings.items():
        begins.run.config.update.add(key=key, value_json=value)
    summary.summary.update.add(key="loss", value_json="0.5")
    ends.exit.exit_code = 0
    return [begins, summary, ends]


def write(records: list[Any], folder: Path) -> Path:
    file = folder / f"offline-run-20260101_000000-{NAME.removeprefix('run-').removesuffix('.wandb')}" / NAME
    file.parent.mkdir(parents=True)
    file.write_bytes(framed([one.SerializeToString() for one in records]))
    return file


def test_refuse_links_names_a_folder_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "wandb").symlink_to(tmp_path)
    refuse_links(tmp_path)
    with pytest.raises(OSError, match="is a symbolic link"):
        refuse_links(tmp_path, tmp_path / "wandb")


def test_own_settings_puts_the_folder_of_wandb_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", "mine")
    with own_settings():
        assert os.environ["WANDB_DIR"] != "mine"
    assert os.environ["WANDB_DIR"] == "mine"


def test_messages_of_what_is_no_file_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, not a regular file"):
        messages(tmp_path)


def test_upload_has_nothing_to_do_for_a_file_in_which_no_run_was_begun(tmp_path: Path) -> None:
    file = write([], tmp_path)
    assert upload.upload([file], Destination("e", "p")) == ""
    assert marker(file).exists()


@pytest.mark.usefixtures("clean_wandb")
def test_upload_begins_anew_where_the_server_has_nothing_of_a_run_that_was_begun(
    server: LoopbackWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(run_of(), tmp_path)
    file.with_name(f"{NAME}.begun").touch()
    sent: dict[Path, bytes] = {}
    monkeypatch.setattr(upload, "_sync", lambda copies, stalled_s: sent.update(copies) or "")
    assert upload.upload([file], Destination("e", "p")) == ""
    copy = tmp_path / "copy"
    copy.write_bytes(sent[file])
    begins, *_ = messages(copy)
    assert begins.run.run_id.startswith("0123456789abcdef-")
    assert begins.run.run_id != "0123456789abcdef-012345"


def test_load_says_that_the_file_of_a_finished_run_is_damaged_behind_its_end(tmp_path: Path) -> None:
    file = write(run_of(lr="0.1"), tmp_path / "wandb")
    file.write_bytes(file.read_bytes() + b"\0\0")
    assert analysis.load(tmp_path).problems[0] == (
        "files of finished runs are damaged at their end: 0123456789abcdef-012345"
    )
