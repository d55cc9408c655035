import json
import math
import os
import re
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from sweep import record
from sweep.files import replace_file
from sweep.record import Record, Status

TRIAL: dict[str, Any] = {"task": {}, "adapter": {}, "optimizer": {}, "training": {}}
WHOLE = Record(
    trial_id="0123456789abcdef",
    name="study",
    status="finished",
    trial={"task": {}, "adapter": {"rank": 4, "targets": ["a", "b"]}, "optimizer": {}, "training": {}, "seed": 0},
    ablation="rank",
    metrics={"eval/loss": {"label": "eval loss", "better": "lower", "kind": "mean"}},
    params={"trainable": 10, "total": 110, "trainable_ratio": 10 / 110},
    result={"eval/loss": 0.1 + 0.2, "eval/accuracy": 1e-300},
    perf={"step_ms": 1.5},
    environment={"python": "3.11", "wandb": None},
    notes=("π ≈ 3", "second"),
    error=None,
)


def test_read_gives_what_write_wrote_bit_for_bit(tmp_path: Path) -> None:
    record.write(WHOLE, tmp_path)
    assert record.read(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_read_gives_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    assert record.read(tmp_path) is None
    assert record.read(tmp_path / "none") is None


def test_write_makes_what_is_no_number_null(tmp_path: Path) -> None:
    values = {"eval/loss": math.nan, "eval/max": math.inf, "eval/ok": 0.5}
    record.write(Record("t", "n", "pruned", trial={**TRIAL, "deep": [{"x": -math.inf}]}, result=values), tmp_path)
    found = json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert found["result"] == {"eval/loss": None, "eval/max": None, "eval/ok": 0.5}
    assert found["trial"] == {**TRIAL, "deep": [{"x": None}]}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"format": 99}', b'{"format": 1}', b'{"format": 1, "extra": 0}', b"\xff\xfe"],
)
def test_read_names_a_damaged_record_and_the_way_out(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json is not .*delete it to run that trial again"):
        record.read(tmp_path)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"result": {"ece": 0.1}}, "result['ece'] is not the name of a metric, such as eval/loss"),
    ({"result": {"eval/loss": True}}, "result['eval/loss'] is not a finite number"),
    ({"perf": {"step_ms": -1.0}}, "perf['step_ms'] = -1.0 is negative"),
    ({"params": {"trainable_ratio": 2.0}}, "params['trainable_ratio'] = 2.0 is above 1"),
    ({"trial": {}}, "its trial's task is not a mapping"),
    ({"name": None}, "name is not a string"),
    ({"trial_id": "\ud800"}, "trial_id has characters that cannot be printed"),
    ({"result": {}}, "it finished without a result"),
    ({"status": "failed"}, "it failed without an error"),
    ({"trial": {**TRIAL, "seed": 10**400}}, "seed is not a number"),
    ({"trial": {**TRIAL, "adapter": {"rank": 10**400}}}, "adapter.rank is not a number"),
    ({"trial": {**TRIAL, "optimizer": {"lr": "abc"}}}, "optimizer.lr is not a number"),
    ({"trial": {**TRIAL, "task": {"hidden": [10**400]}}}, "task.hidden is not a finite number of at most 64 bits"),
    ({"status": "lost"}, "status 'lost' is none of finished, pruned, diverged, failed"),
    ({"notes": (1,)}, "ablation or a note is not a string"),
    ({"error": {"message": 1}}, "error is not a mapping of strings"),
    ({"metrics": []}, "metrics is not a mapping"),
    ({"metrics": {"ece": {"label": "ECE"}}}, "metrics: metric 'ece': must be a full name, such as eval/ece"),
    ({"metrics": {"eval/ece": {"label": "ECE", "better": "up"}}}, "metrics: 'eval/ece' is not a metric"),
    ({"metrics": {"eval/ece": {"label": "ECE", "kind": "median"}}}, "metrics: 'eval/ece' is not a metric"),
    ({"metrics": {"eval/ece": {"label": 1}}}, "metrics: 'eval/ece' is not a metric"),
    ({"metrics": {"eval/ece": 1}}, "metrics: "),
]


@pytest.mark.parametrize(("changes", "says"), WRONG, ids=[says for _, says in WRONG])
def test_write_refuses_what_read_would_and_writes_nothing(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    wrong = replace(WHOLE, **changes)
    with pytest.raises(ValueError, match=re.escape(f"the record of trial {wrong.trial_id} was not written: {says}")):
        record.write(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "record.json").write_text(json.dumps(asdict(wrong)))
    with pytest.raises(ValueError, match=re.escape(f"record.json is not a record ({says}")):
        record.read(tmp_path)


def test_read_refuses_a_number_whose_square_overflows_and_write_calls_it_absent(tmp_path: Path) -> None:
    values = asdict(WHOLE) | {"result": {"eval/loss": 1e308}}
    (tmp_path / "record.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is not a finite number"):
        record.read(tmp_path)
    record.write(replace(WHOLE, result={"eval/loss": 2.0, "eval/perplexity": 1e200}), tmp_path)
    found = record.read(tmp_path)
    assert found is not None
    assert found.result == {"eval/loss": 2.0, "eval/perplexity": None}


def test_read_bounds_keys_and_levels(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    for environment, says in ((deep, "more than 50 levels"), (dict.fromkeys(map(str, range(2001))), "2,000 keys")):
        (tmp_path / "record.json").write_text(json.dumps(asdict(WHOLE) | {"environment": environment}))
        with pytest.raises(ValueError, match=f"record.json is not a record .*{says}.*; delete it"):
            record.read(tmp_path)


def test_read_takes_a_record_that_was_written_before_metrics_were(tmp_path: Path) -> None:
    values = asdict(WHOLE)
    del values["metrics"]
    (tmp_path / "record.json").write_text(json.dumps(values))
    assert record.read(tmp_path) == replace(WHOLE, metrics={})


def test_write_that_is_interrupted_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write(WHOLE, tmp_path)

    def out_of_space(descriptor: int) -> None:
        [temporary] = [path for path in tmp_path.iterdir() if path.name != "record.json"]
        assert temporary.stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", out_of_space)
    with pytest.raises(OSError, match="No space left"):
        record.write(Record("other", "n", "failed", trial=TRIAL, error={"type": "OSError"}), tmp_path)
    assert record.read(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_write_makes_the_file_appear_whole_after_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        order.append("fsync")

    def renamed(self: Path, target: Path) -> Path:
        assert self.read_bytes() == b"whole"
        assert not target.exists()
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace_file(tmp_path / "file", b"whole")
    assert order == ["fsync", "rename"]
    assert (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_write_gives_the_mode_of_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        record.write(WHOLE, tmp_path)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record.json").stat().st_mode) == mode


def test_record_is_finished_only_where_the_trial_ran_to_its_end() -> None:
    of = {status: Record("t", "n", status, trial={}).finished for status in get_args(Status)}
    assert of == {"finished": True, "pruned": False, "diverged": False, "failed": False}
    healthy = {status for status in get_args(Status) if Record("t", "n", status, trial={}).healthy}
    assert healthy == {"finished", "pruned"}


def test_record_is_plain_json(tmp_path: Path) -> None:
    record.write(WHOLE, tmp_path)
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "π" in text
    assert json.loads(text) == {**asdict(WHOLE), "notes": list(WHOLE.notes)}


def test_mixtures_name_what_differs_between_the_trials_of_a_sweep() -> None:
    def one(seed: int, **environment: str) -> Record:
        ran_on = {"torch": "2.13", "code": "c0de", "base": "b", "device": "cpu"} | environment
        trial = {"task": {"name": "mnist"}, "data": "d", "seed": seed}
        return Record(str(seed), "n", "finished", trial=trial, environment=ran_on)

    assert record.mixtures([one(0), one(1)]) == []
    assert record.mixtures([one(0), replace(one(1, base="other"), trial={"task": {"name": "toy of another"}})]) == []
    assert record.mixtures([one(0), one(1), one(2, torch="2.12", base="other")]) == [
        "torch: 2.13 (2 trials), 2.12 (1 trial)",
        "base: b (2 trials), other (1 trial)",
    ]
