import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sweep import record
from sweep.record import Record
from sweep.trackers.local import LocalTracker
from tests.support.commands import history

TRIAL: dict[str, Any] = {"task": {}, "adapter": {}, "optimizer": {}, "training": {}}
DONE = Record("t", "n", "finished", trial=TRIAL, result={"eval/loss": 0.5})


def test_local_tracker_rows_wait_for_a_flush_and_then_are_on_disk(tmp_path: Path) -> None:
    tracker = LocalTracker(tmp_path / "sweep" / "trial")
    tracker.log(0, {"eval/loss": 1.0})
    tracker.log(10, {"train/loss": 0.1 + 0.2})
    assert history(tmp_path / "sweep" / "trial") == []
    tracker.flush()
    tracker.flush()
    assert history(tmp_path / "sweep" / "trial") == [
        {"step": 0, "eval/loss": 1.0},
        {"step": 10, "train/loss": 0.1 + 0.2},
    ]


def test_local_tracker_writes_null_for_what_is_no_number(tmp_path: Path) -> None:
    tracker = LocalTracker(tmp_path)
    tracker.log(1, {"train/loss": math.nan, "train/lr": math.inf})
    tracker.flush()
    text = (tmp_path / "history.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "train/loss": None, "train/lr": None}


def test_local_tracker_starts_a_new_history_when_a_trial_starts_again(tmp_path: Path) -> None:
    first = LocalTracker(tmp_path)
    first.note("first attempt")
    first.log(1, {"train/loss": 1.0})
    first.finish(DONE)
    second = LocalTracker(tmp_path)
    assert record.read(tmp_path) is None  # a half-trained trial has no record of an earlier attempt
    second.log(1, {"train/loss": 2.0})
    second.note("second attempt")
    second.finish(DONE)
    assert history(tmp_path) == [{"step": 1, "train/loss": 2.0}]
    log = (tmp_path / "trial.log").read_text()
    assert log.index("first attempt") < log.index("second attempt")


def test_local_tracker_writes_the_record_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = LocalTracker(tmp_path)
    tracker.log(1, {"train/loss": 1.0})
    written = []

    def write(final: Record, folder: Path) -> None:
        written.append((len(history(folder)), "finished" in (folder / "trial.log").read_text()))

    monkeypatch.setattr(record, "write", write)
    tracker.finish(DONE)
    assert written == [(1, True)]


def test_local_tracker_logs_a_failure_with_its_traceback(tmp_path: Path) -> None:
    error = {"type": "ValueError", "message": "bad", "traceback": "Traceback …\nValueError: bad"}
    LocalTracker(tmp_path).finish(Record("t", "n", "failed", trial=TRIAL, error=error))
    first, *rest = (tmp_path / "trial.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d failed: ValueError: bad", first)
    assert rest == ["Traceback …", "ValueError: bad"]


def test_local_tracker_keeps_no_file_open(tmp_path: Path) -> None:
    """A pack of hundreds of trials must not meet the system's limit of open files."""
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    trackers = [LocalTracker(tmp_path / str(number)) for number in range(50)]
    for tracker in trackers:
        tracker.log(1, {"train/loss": 1.0})
        tracker.flush()
        tracker.note("on")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_local_tracker_whose_trial_another_launch_has_begun_stops_and_leaves_the_other_alone(tmp_path: Path) -> None:
    first = LocalTracker(tmp_path)
    first.log(1, {"train/loss": 1.0})
    first.flush()
    second = LocalTracker(tmp_path)
    second.log(1, {"train/loss": 2.0})
    second.flush()
    first.log(2, {"train/loss": 1.0})
    for write in (first.flush, lambda: first.finish(DONE)):
        with pytest.raises(OSError, match=r"another launch has begun .* \(was \.lock deleted\?\)"):
            write()
    second.finish(DONE)
    assert history(tmp_path) == [{"step": 1, "train/loss": 2.0}]
    assert record.read(tmp_path) == DONE


def test_local_tracker_writes_through_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = tmp_path / "trial"
    folder.mkdir()
    for name in ("history.jsonl", "trial.log", "record.json"):
        (folder / name).symlink_to(mine)
    tracker = LocalTracker(folder)
    tracker.log(1, {"train/loss": 1.0})
    with pytest.raises(OSError, match="symbolic link"):
        tracker.finish(DONE)
    (folder / "trial.log").unlink()
    tracker.finish(DONE)
    assert mine.read_text() == "mine"
    assert [path.is_symlink() for path in folder.iterdir()] == [False] * 3
