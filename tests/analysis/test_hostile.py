"""Records that somebody else has made: names that would be code elsewhere, and values that no trial leaves."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.__main__ import main
from analysis.report import report
from analysis.tables.csv import for_spreadsheets
from analysis.tables.layout import file_stem

NAMES = (
    "</script><img src=x onerror='document.title=1'>",
    "$\\frac{",
    "_x",
    '=HYPERLINK("http://x")',
    "\x1b[31mx\x07",
    "a\x00b",
    "\ud800",
    "\u202ex",
    "a|b\nc",
    "\\input{/etc/passwd}",
    "![x](http://x/y)",
    "x" * 3000,
    "../../x",
    "",
    " ",
    "-rf",
    "nan",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One level, task, metric, error and sweep for each name."""
    trials = grid(seeds=range(2), references=(), init=["kaiming", *NAMES])
    for trial in trials:
        trial["task"]["name"] = NAMES[0]
    folder = write_sweep(tmp_path_factory.mktemp("hostile") / "s", trials, np.random.default_rng(0), points=2)
    for number, path in enumerate(sorted(folder.glob("*/record.json"))):
        record = json.loads(path.read_text())
        name = NAMES[number % len(NAMES)]
        record |= {"name": name, "ablation": name}
        record["result"] |= {f"eval/{name}": 1.0 for name in NAMES}
        if number < len(NAMES):
            record |= {"status": "failed", "error": dict.fromkeys(("type", "message", "traceback"), name), "result": {}}
        path.write_text(json.dumps(record))
    return folder


@pytest.mark.slow
def test_hostile_names_are_text_in_every_file_and_on_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(hostile.parent.iterdir())
    for command in ("table", "compare"):
        how = (
            ["--rows", "adapter.init", "--format", "tex"]
            if command == "table"
            else ["--factor", "adapter.init", "--baseline", "kaiming"]
        )
        for metric in ("eval/loss", f"eval/{NAMES[11]}", f"eval/{NAMES[4]}", f"eval/{NAMES[12]}"):
            code = main(
                [command, str(hostile), *how, "--metric", metric.replace("\x1b", "\\x1b").replace("\x07", "\\x07")]
            )
            assert code == 0, capsys.readouterr().err
    assert main(["export", str(hostile), "--to", str(hostile / "report" / "trials.csv")]) == 0
    page = report.write(analysis.load(hostile))
    said = "".join(capsys.readouterr())
    assert all(char.isprintable() for char in said.replace("\n", ""))
    assert set(hostile.parent.iterdir()) == before
    for path in (hostile / "report").rglob("*.*"):
        assert re.fullmatch(r"[\w.+-]+", path.name)
        if path.suffix in (".html", ".tex", ".csv", ".md", ".json"):
            text = path.read_text(encoding="utf-8")
            assert all(char.isprintable() for char in text.replace("\n", "")), path
        if path.suffix == ".svg":
            ElementTree.parse(path)  # ours
        if path.suffix == ".tex":
            assert "\\input{" not in text
            assert "\\frac" not in text
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
            assert not [cell for cell in cells if re.match(r"[=+@]|-[a-z]", cell)]
    assert "<img src=x" not in page.read_text(encoding="utf-8")


def test_csv_quotes_what_a_spreadsheet_would_compute_and_no_number() -> None:
    for text in ("=1+1", "+cmd", "-2+3", "@SUM(1)"):
        assert for_spreadsheets(text) == f"'{text}"
    for text in ("-1", "-1e-3", "1", "+2.5", "r=1", ""):
        assert for_spreadsheets(text) == text
    assert file_stem("table", "../a/b", "eval/source_loss") == "table_..-a-b_eval-source_loss"


def replaced(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: record | values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replaced(format=2), "is not a record of format 1"),
        (replaced(result={"eval/loss": True}), "result['eval/loss'] is not"),
        (replaced(result={"eval/loss": float("nan")}), "result['eval/loss'] is not"),
        (replaced(result={"eval/loss": 10**400}), "result['eval/loss'] is not"),
        (replaced(result={"adapter.rank": 3}), "result['adapter.rank'] is not"),
        (replaced(params={"trainable": -1}), "params['trainable'] = -1 is negative"),
        (replaced(params={"trainable_ratio": 2.0}), "params['trainable_ratio'] = 2.0 is above 1"),
        (replaced(perf={"step_ms": -1}), "perf['step_ms'] = -1 is negative"),
        (
            replaced(trial={"task": {}, "adapter": [], "optimizer": {}, "training": {}}),
            "its trial's adapter is not",
        ),
        (replaced(error={"message": 1}), "error is not"),
        (replaced(own=1), "unexpected keyword argument 'own'"),
    ],
)
def test_load_keeps_values_that_no_trial_leaves_out_of_tables(change: Callable, says: str, tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid(range(3), (), rank=[1]), np.random.default_rng(0), points=2)
    path = folder / "trial_00000" / "record.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    sweep = analysis.load(folder)
    assert len(sweep.trials) == 2
    [problem] = sweep.problems
    assert problem.startswith(str(path))
    assert says in problem


def test_load_lets_no_record_speak_for_another_column_or_trial(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid(range(2), (), rank=[1]), np.random.default_rng(0), points=2)
    first, second = (folder / f"trial_0000{number}" for number in (0, 1))
    record = json.loads((first / "record.json").read_text())
    del record["result"]["eval/loss"]
    record["trial"] |= {"eval/loss": 0.0, "status": "finished", "trial_id": "x", "folder": "../../x"}
    (first / "record.json").write_text(json.dumps(record))
    other = json.loads((second / "record.json").read_text())["trial_id"]
    (first / "history.jsonl").write_text(
        json.dumps({"step": 1, "trial_id": other, "train/loss": 7.0, "eval/loss": "8"})
    )
    sweep = analysis.load(folder)
    assert sweep.trials["eval/loss"].isna().tolist() == [True, False]
    assert sweep.trials["trial_id"].tolist() == [record["trial_id"], other]
    assert sweep.trials["folder"].tolist() == [first.as_posix(), second.as_posix()]
    mine = sweep.history[sweep.history["train/loss"] == 7.0]
    assert mine["trial_id"].tolist() == [record["trial_id"]]


def test_load_names_nesting_without_end(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid(range(2), (), rank=[1]), np.random.default_rng(0), points=2)
    (folder / "trial_00000" / "record.json").write_text("[" * 100_000)
    (folder / "trial_00001" / "history.jsonl").write_text("[" * 100_000)
    sweep = analysis.load(folder)
    assert len(sweep.trials) == 1
    assert ["record.json is not valid JSON" in sweep.problems[0], "history lines" in sweep.problems[1]] == [True, True]


def test_load_of_damaged_wandb_files_gives_a_prefix_or_a_problem(tmp_path: Path) -> None:
    """Random cuts, flipped bits, and garbage whose checksum is right."""
    import struct
    import zlib

    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    from analysis.sources.wandb_runs import read_offline
    from sweep.trackers import upload

    def chunk(data: bytes) -> bytes:
        return struct.pack("<IHB", zlib.crc32(data, zlib.crc32(b"\1")), len(data), 1) + data

    messages = []
    for step in range(20):
        message = Record()
        for key, value in (("step", step), ("train/loss", 1 / (1 + step))):
            message.history.item.add(key=key, value_json=json.dumps(value))
        messages.append(chunk(message.SerializeToString()))
    whole = struct.pack("<4sHB", b":W&B", 0xBEE1, 0) + b"".join(messages)
    rng = np.random.default_rng(0)
    file = tmp_path / "wandb" / "run-1_1-x" / f"run-{'a' * 16}-abcdef.wandb"
    file.parent.mkdir(parents=True)
    file.with_name("run-x.wandb").touch()
    assert upload.run_files(tmp_path) == []
    for number in range(300):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[rng.integers(len(whole)) :]
        elif number % 3 == 1:
            content[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        else:
            bad = Record()
            bad.history.item.add(key="step", value_json=["[" * 5000, "nope", "NaN", '"x"'][rng.integers(4)])
            content += chunk(
                [bytes(rng.integers(0, 256, 30, dtype=np.uint8)), bad.SerializeToString()][rng.integers(2)]
            )
        file.write_bytes(content)
        assert upload.run_files(tmp_path) == [file]
        raw = read_offline(tmp_path)
        rows = [(row["step"], row["train/loss"]) for row in raw.history if "train/loss" in row]
        assert rows == [(step, 1 / (1 + step)) for step in range(len(rows))]
        assert raw.problems or raw.missing
        try:
            found = upload.messages(file)
        except ValueError:
            assert number % 3 > 0
        else:
            assert sum(b"train/loss" in one.SerializeToString() for one in found) >= len(rows)
        assert file.read_bytes() == content
