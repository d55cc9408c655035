"""The W&B mirror, against files on disk and a server on 127.0.0.1 that may misbehave.

What concerns a whole process (a login, a kill, a lost server) runs in a process of its own: wandb keeps its
session and its service for as long as the process lives.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import wandb

from analysis.sources.wandb_files import read_run
from sweep.metrics import Metric
from sweep.record import Record
from sweep.samples import Sample
from sweep.trackers import upload
from sweep.trackers.wandb import LEAN, WandbSettings, WandbSweep, WandbTracker, choose_mode, finish_all, set_aside
from tests.support.loopback_wandb import KEY, LoopbackWandb
from tests.support.mirror import (
    CONFIG,
    LOGGED,
    METRICS,
    RECORD,
    ROWS,
    SUMMARY,
    log_all,
    settings,
    start,
    sync,
    tracker,
    written,
)

pytestmark = pytest.mark.usefixtures("clean_wandb")

# Offline


def test_wandb_offline_run_reads_back_as_logged(tmp_path: Path) -> None:
    mirror = tracker(tmp_path)
    log_all(mirror)
    mirror.finish(RECORD)
    [run] = written(tmp_path / "wandb")
    assert (run.id[:2], run.name, run.group) == ("t-", "rank=8", "my-sweep")
    assert run.config == {**CONFIG, "trial_id": "t", "ablation": "rank"}
    assert run.history == LOGGED
    assert run.summary == SUMMARY
    assert (run.exit_code, run.truncated) == (0, False)


def test_samples_are_a_table_that_sync_does_not_send(tmp_path: Path) -> None:
    mirror = tracker(tmp_path)
    log_all(mirror)
    mirror.log_samples([Sample("Who?", "God", "A man"), Sample("Where?", "Eden", "Eden")])
    mirror.finish(RECORD)
    [run] = written(tmp_path / "wandb")
    assert run.history[:-1] == LOGGED
    assert run.history[-1]["samples"]["nrows"] == 2
    [table] = tmp_path.glob(f"wandb/*/files/{run.history[-1]['samples']['path']}")
    assert json.loads(table.read_text()) == {
        "columns": ["prompt", "expected", "answer"],
        "data": [["Who?", "God", "A man"], ["Where?", "Eden", "Eden"]],
    }
    [file] = tmp_path.glob("wandb/*/*.wandb")
    copy = upload.copied(upload.messages(file), upload.Destination("local", "mine"), "t-1")
    (tmp_path / "copy.wandb").write_bytes(copy)
    sent = read_run(tmp_path / "copy.wandb")
    assert (sent.history[:-1], set(sent.history[-1]), sent.summary) == (LOGGED, {"step"}, SUMMARY)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_wandb_run_of_a_trial_that_did_not_finish_is_failed(tmp_path: Path, status: Any) -> None:
    mirror = tracker(tmp_path)
    mirror.finish(Record(trial_id="t", name="n", status=status, trial={}))
    [run] = written(tmp_path)
    assert (run.exit_code, run.summary) == (1, {"status": status})


def test_wandb_rows_are_thinned_but_evaluations_are_kept(tmp_path: Path) -> None:
    mirror = tracker(tmp_path, every=10)
    for step in range(30):
        mirror.log(step, {"eval/loss": 1.0} if step == 25 else {"train/loss": 1.0})
    mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert [row["step"] for row in run.history] == [0, 10, 20, 25]


def test_wandb_summary_holds_the_best_value_by_the_direction_of_the_metric(tmp_path: Path) -> None:
    metrics = [
        Metric("eval/ece", "ECE", better="lower"),
        Metric("eval/accuracy", "an accuracy of which less is better", better="lower"),
        Metric("eval/f1", "F1", better="higher"),
        Metric("eval/loss", "a loss without a direction"),
    ]
    mirror = WandbTracker(settings(tmp_path), "t", "rank=8", CONFIG, metrics)
    for step, value in enumerate((0.5, 0.25, 0.75, 0.5)):
        row = {metric.name: value for metric in metrics} | {"eval/unknown": value}
        mirror.log(step, row)
    mirror.finish(RECORD)
    [run] = written(tmp_path)
    lowest, highest = {"min": 0.25, "last": 0.5}, {"max": 0.75, "last": 0.5}
    shown = {key: value for key, value in run.summary.items() if key.startswith("eval/")}
    assert shown == {
        "eval/ece": lowest,
        "eval/accuracy": lowest,
        "eval/f1": highest,
        "eval/loss": 0.5,
        "eval/unknown": 0.5,
    }


@pytest.mark.slow
def test_wandb_has_64_runs_open_at_once(tmp_path: Path) -> None:
    names = [f"trial{number}" for number in range(64)]
    mirrors = [tracker(tmp_path, trial_id=name) for name in names]
    for step in range(5):
        for number, mirror in enumerate(mirrors):
            mirror.log(step, {"train/loss": float(number)})
    finish_all((mirror, RECORD) for mirror in mirrors)
    runs = {run.config["trial_id"]: run for run in written(tmp_path)}
    assert runs.keys() == set(names)
    for number, name in enumerate(names):
        assert [row["train/loss"] for row in runs[name].history] == [number] * 5
        assert runs[name].exit_code == 0


def test_finish_all_finishes_every_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(8, timeout=60)  # broken, and an error, where one waits for another to finish
    monkeypatch.setattr(WandbTracker, "finish", lambda mirror, record: together.wait())
    finish_all((tracker(tmp_path, trial_id=f"trial{number}"), RECORD) for number in range(8))
    assert not together.broken


def test_wandb_sets_an_earlier_attempt_aside(tmp_path: Path) -> None:
    for attempt in range(3):
        mirror = tracker(tmp_path)
        mirror.log(attempt, {"train/loss": 1.0})
        mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert [row["step"] for row in run.history] == [2]
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == 2


def test_set_aside_moves_only_the_named_trial(tmp_path: Path) -> None:
    kept = ["offline-run-20260101_000000-a-b-c0ffee", "offline-run-20260101_000000-ab-c0ffee", "settings"]
    moved = ["offline-run-20260101_000000-b-c0ffee", "run-20260101_000000-b-badbad"]
    for name in kept + moved:
        (tmp_path / "wandb" / name).mkdir(parents=True)
    set_aside(tmp_path, "b")
    assert sorted(path.name for path in (tmp_path / "wandb").iterdir()) == sorted([*kept, "superseded"])
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == len(moved)


def test_wandb_abandons_an_attempt_that_is_still_open_for_the_next(tmp_path: Path) -> None:
    sweep = WandbSweep(settings(tmp_path))
    sweep.open("t", "rank=8", CONFIG, METRICS).log(0, {"train/loss": 9.0})
    again = sweep.open("t", "rank=8", CONFIG, METRICS)
    log_all(again)
    again.finish(RECORD)
    [run] = written(tmp_path)
    assert run.history == LOGGED
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == 1


def test_wandb_error_is_one_warning_and_then_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken pipe\nand more")

    mirror = tracker(tmp_path)
    monkeypatch.setattr(wandb.Run, "log", broken)
    with caplog.at_level(logging.WARNING):
        log_all(mirror)
        mirror.finish(RECORD)
    [message] = [record.message for record in caplog.records if record.name == "sweep.trackers.wandb"]
    assert message.startswith("W&B: could not log to the run of rank=8 (RuntimeError: broken pipe and more); ")
    assert mirror.lost


KILLED = """
import sys, time
from pathlib import Path
from tests.support.mirror import log_all, tracker
mirror = tracker(Path(sys.argv[1]))
log_all(mirror)
time.sleep(2.5)
mirror.log(40, {"train/loss": 0.0})
print("logged", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_wandb_run_of_a_killed_process_has_its_rows(tmp_path: Path) -> None:
    process = start(KILLED, tmp_path)
    assert process.stdout
    assert process.stdout.readline() == "logged\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    [run] = written(tmp_path)
    assert run.history[: len(LOGGED)] == LOGGED
    assert len(run.history) <= len(LOGGED) + 1
    assert run.exit_code is None


# Online


def test_wandb_online_server_receives_what_was_logged(tmp_path: Path, server: LoopbackWandb) -> None:
    assert choose_mode("online") == "online"
    mirror = tracker(tmp_path, "online")
    log_all(mirror)
    mirror.finish(RECORD)
    run = server.run_of("t")
    assert (run.project, run.name, run.group, run.tags) == ("lora-sweep", "rank=8", "my-sweep", ["rank"])
    assert run.config == {**CONFIG, "trial_id": "t", "ablation": "rank"}
    assert run.history == LOGGED
    assert run.summary == SUMMARY
    assert (run.state, run.exit_code) == ("finished", 0)
    assert server.unknown == []


def test_wandb_online_run_is_read_back_by_the_public_api(tmp_path: Path, server: LoopbackWandb) -> None:
    for group in ("one", "two"):
        mirror = WandbTracker(WandbSettings(tmp_path, "online", group, None, 1), group, "n", CONFIG, METRICS)
        log_all(mirror)
        mirror.finish(RECORD)
    [run] = wandb.Api().runs("local/lora-sweep", filters={"group": "two"})
    assert run.config == {**CONFIG, "trial_id": "two", "ablation": None}
    assert run.summary["result/eval/loss"] == 0.25
    assert [row["train/loss"] for row in run.scan_history()] == [row["train/loss"] for row in ROWS]
    assert len(run.history(keys=["train/loss"], pandas=False)) == len(ROWS)
    assert server.unknown == []


def test_wandb_online_second_attempt_is_a_second_run(tmp_path: Path, server: LoopbackWandb) -> None:
    sweep = WandbSweep(settings(tmp_path, "online"))
    sweep.open("t", "rank=8", CONFIG, METRICS).log(0, {"train/loss": 9.0})
    again = sweep.open("t", "rank=8", CONFIG, METRICS)
    log_all(again)
    again.finish(RECORD)
    first, second = server.runs.values()
    assert (first.state, len(first.history)) == ("failed", 1)
    assert (second.state, second.history) == ("finished", LOGGED)
    assert first.config == second.config


def test_wandb_offline_run_is_uploaded_whole_by_wandb_sync(tmp_path: Path, server: LoopbackWandb) -> None:
    for _ in range(2):
        mirror = tracker(tmp_path)
        log_all(mirror)
        mirror.finish(RECORD)
    sync(*tmp_path.glob("wandb/offline-run-*"))
    run = server.run_of("t")
    assert run.history == LOGGED
    assert run.summary == SUMMARY
    assert run.config == {**CONFIG, "trial_id": "t", "ablation": "rank"}
    assert run.state == "finished"


def test_wandb_online_goes_offline_when_the_server_dies_between_trials(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(LEAN, "init_timeout", 1)
    sweep = WandbSweep(settings(tmp_path, choose_mode("online")))
    server.die()
    mirror = sweep.open("t", "rank=8", CONFIG, METRICS)
    log_all(mirror)
    mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert (run.history, run.summary) == (LOGGED, SUMMARY)
    [message] = [record.message for record in caplog.records if record.name == "sweep.trackers.wandb"]
    assert message.startswith("W&B: could not open the run of rank=8 (")


# Privacy

LEAKY = """
import logging, sys
from pathlib import Path
from sweep.trackers.wandb import choose_mode
from tests.support.mirror import RECORD, log_all, tracker
mirror = tracker(Path(sys.argv[1]), choose_mode(sys.argv[2]))
print("CANARY in the console")
logging.warning("CANARY in the log")
log_all(mirror)
mirror.finish(RECORD)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_sends_nothing_of_the_machine(tmp_path: Path, server: LoopbackWandb, mode: str) -> None:
    checkout = tmp_path / "CANARY-path"
    checkout.mkdir()
    git = ["git", "-C", str(checkout), "-c", "user.name=CANARY-user", "-c", "user.email=CANARY@x.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://CANARY@x.invalid/CANARY.git"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "CANARY"], check=True)
    process = start(
        f"import os; os.chdir({str(checkout)!r})\n{LEAKY}",
        *(checkout / "outputs", mode, "--token=CANARY-argument"),
        extra={"CANARY_NAME": "CANARY-value", "HOME": str(checkout)},
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "CANARY in the console" in output
    if mode == "offline":
        assert server.requests == []
        sync(*checkout.glob("outputs/wandb/offline-run-*"))
    assert server.run_of("t").history == LOGGED

    [log_file] = checkout.glob("outputs/wandb/*/*.wandb")
    sent = b"\n".join([path.encode() + body for _, path, body in server.requests])
    assert len(sent) > 1000
    for content in (sent, log_file.read_bytes()):
        for secret in ("CANARY", str(tmp_path), KEY, f'"{socket.gethostname()}"'):
            assert secret.encode() not in content
    assert server.run_of("t").host in (None, "redacted")


def test_samples_that_cannot_be_a_table_cost_the_run_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "closed").touch()
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "closed"))
    mirror = tracker(tmp_path)
    log_all(mirror)
    mirror.log_samples([Sample("Who?", "God", "A man")])
    mirror.finish(RECORD)
    assert "W&B: no table of the samples of rank=8 (" in caplog.text
    [run] = written(tmp_path / "wandb")
    assert (run.history[: len(LOGGED)], run.summary, mirror.lost) == (LOGGED, SUMMARY, False)
