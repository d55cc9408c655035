"""The W&B mirror, against files on disk and a server on 127.0.0.1 that may misbehave.

What concerns a whole process (a login, a kill, a lost server) runs in a process of its own: wandb keeps its
session and its service for as long as the process lives.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import wandb

from analysis.wandb_files import WandbRun, read_runs
from sweep.record import Record
from sweep.trackers.wandb import LEAN, WandbSweep, WandbTracker, choose_mode, finish_all, set_aside
from tests.loopback_wandb import KEY, Fault, LoopbackWandb

ROOT = Path(__file__).parents[2]
CONFIG = {"adapter.rank": 8, "adapter.init": "pissa", "optimizer.lr": 3e-3, "seed": 0, "task.name": "mnist"}
ROWS = [
    {"train/loss": 1.0 / (1 + step), "eval/accuracy": 0.5 - abs(step - 20) / 100, "perf/step_ms": 2.5}
    for step in range(40)
]
RECORD = Record(
    trial_id="t",
    name="rank=8",
    status="finished",
    trial={},
    result={"eval/loss": 0.25},
    params={"trainable": 1024},
    perf={"step_ms": 2.5},
)
SUMMARY = {
    "status": "finished",
    "result/eval/loss": 0.25,
    "params/trainable": 1024,
    "perf/step_ms": 2.5,
    "step": 39,
    "train/loss": {"min": 1 / 40, "last": 1 / 40},
    "eval/accuracy": {"max": 0.5, "last": 0.5 - 19 / 100},
}
LOGGED = [{"step": step, **row} for step, row in enumerate(ROWS)]


@pytest.fixture(autouse=True)
def clean_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the key, the settings and the server of whoever runs the tests; leave nothing open."""
    for key in set(os.environ) - set(clean_environment(tmp_path)):
        monkeypatch.delenv(key)
    for key, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackWandb]:
    with LoopbackWandb() as running:
        for key, value in running.environment().items():
            monkeypatch.setenv(key, value)
        yield running


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment with no W&B in it, but for a server that is not there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_ERROR_REPORTING": "false"}
    return {**kept, **nowhere, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def tracker(folder: Path, mode: Any = "offline", trial_id: str = "t", every: int = 1) -> WandbTracker:
    return WandbTracker(folder, mode, trial_id, "rank=8", "my-sweep", "rank", CONFIG, every)


def written(folder: Path) -> list[WandbRun]:
    """The runs on disk: ``finish`` returns some milliseconds before wandb-core has closed the file."""
    wandb.teardown()
    return read_runs(folder)


def log_all(mirror: WandbTracker) -> None:
    for step, row in enumerate(ROWS):
        mirror.log(step, row)


def start(
    script: str,
    *arguments: object,
    environment: Mapping[str, str] = os.environ,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[str]:
    """Start a Python process that has no terminal, in a session of its own.

    It works in its HOME: ``wandb sync`` leaves a ``wandb`` folder where it is started.
    """
    variables = {**environment, **extra}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=variables,
        cwd=variables["HOME"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sync(*arguments: object, extra: Mapping[str, str] = MappingProxyType({})) -> None:
    done = start("from wandb.cli.cli import cli; cli()", "sync", *arguments, extra=extra)
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 0, output


# Offline


def test_offline_run_reads_back_as_logged(tmp_path: Path) -> None:
    mirror = tracker(tmp_path)
    log_all(mirror)
    mirror.finish(RECORD)
    [run] = written(tmp_path / "wandb")
    assert (run.id[:2], run.name, run.group) == ("t-", "rank=8", "my-sweep")
    assert run.config == {**CONFIG, "trial_id": "t", "ablation": "rank"}
    assert run.history == LOGGED
    assert run.summary == SUMMARY
    assert (run.exit_code, run.truncated) == (0, False)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_a_trial_that_did_not_finish_is_a_failed_run(tmp_path: Path, status: Any) -> None:
    mirror = tracker(tmp_path)
    mirror.finish(Record(trial_id="t", name="n", status=status, trial={}))
    [run] = written(tmp_path)
    assert (run.exit_code, run.summary) == (1, {"status": status})


def test_rows_are_thinned_but_evaluations_are_kept(tmp_path: Path) -> None:
    mirror = tracker(tmp_path, every=10)
    for step in range(30):
        mirror.log(step, {"eval/loss": 1.0} if step == 25 else {"train/loss": 1.0})
    mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert [row["step"] for row in run.history] == [0, 10, 20, 25]


def test_64_runs_open_at_once(tmp_path: Path) -> None:
    names = [f"trial{number}" for number in range(64)]
    mirrors = [tracker(tmp_path, trial_id=name) for name in names]
    for step in range(5):
        for number, mirror in enumerate(mirrors):
            mirror.log(step, {"train/loss": float(number)})
    started = time.monotonic()
    finish_all((mirror, RECORD) for mirror in mirrors)
    assert time.monotonic() - started < 10
    runs = {run.config["trial_id"]: run for run in written(tmp_path)}
    assert runs.keys() == set(names)
    for number, name in enumerate(names):
        assert [row["train/loss"] for row in runs[name].history] == [number] * 5
        assert runs[name].exit_code == 0


def test_an_earlier_attempt_is_set_aside(tmp_path: Path) -> None:
    for attempt in range(3):
        mirror = tracker(tmp_path)
        mirror.log(attempt, {"train/loss": 1.0})
        mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert [row["step"] for row in run.history] == [2]
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == 2


def test_only_the_named_trial_is_set_aside(tmp_path: Path) -> None:
    kept = ["offline-run-20260101_000000-a-b-c0ffee", "offline-run-20260101_000000-ab-c0ffee", "settings"]
    moved = ["offline-run-20260101_000000-b-c0ffee", "run-20260101_000000-b-badbad"]
    for name in kept + moved:
        (tmp_path / "wandb" / name).mkdir(parents=True)
    set_aside(tmp_path, "b")
    assert sorted(path.name for path in (tmp_path / "wandb").iterdir()) == sorted([*kept, "superseded"])
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == len(moved)


def test_an_attempt_that_is_still_open_is_abandoned_for_the_next(tmp_path: Path) -> None:
    sweep = WandbSweep(tmp_path, "offline", "my-sweep", "rank", 1)
    sweep.open("t", "rank=8", CONFIG).log(0, {"train/loss": 9.0})
    again = sweep.open("t", "rank=8", CONFIG)
    log_all(again)
    again.finish(RECORD)
    [run] = written(tmp_path)
    assert run.history == LOGGED
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == 1


def test_an_error_is_one_warning_and_then_silence(
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
from tests.trackers.test_wandb import log_all, tracker
mirror = tracker(Path(sys.argv[1]))
log_all(mirror)
time.sleep(2.5)
mirror.log(40, {"train/loss": 0.0})
print("logged", flush=True)
time.sleep(60)
"""


def test_a_killed_process_leaves_its_rows(tmp_path: Path) -> None:
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


def test_the_server_receives_what_was_logged(tmp_path: Path, server: LoopbackWandb) -> None:
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


def test_the_public_api_reads_it_back(tmp_path: Path, server: LoopbackWandb) -> None:
    for group in ("one", "two"):
        mirror = WandbTracker(tmp_path, "online", group, "n", group, None, CONFIG, 1)
        log_all(mirror)
        mirror.finish(RECORD)
    [run] = wandb.Api().runs("local/lora-sweep", filters={"group": "two"})
    assert run.config == {**CONFIG, "trial_id": "two", "ablation": None}
    assert run.summary["result/eval/loss"] == 0.25
    assert [row["train/loss"] for row in run.scan_history()] == [row["train/loss"] for row in ROWS]
    assert len(run.history(keys=["train/loss"], pandas=False)) == len(ROWS)
    assert server.unknown == []


def test_a_second_attempt_is_a_second_run_online(tmp_path: Path, server: LoopbackWandb) -> None:
    sweep = WandbSweep(tmp_path, "online", "my-sweep", "rank", 1)
    sweep.open("t", "rank=8", CONFIG).log(0, {"train/loss": 9.0})
    again = sweep.open("t", "rank=8", CONFIG)
    log_all(again)
    again.finish(RECORD)
    first, second = server.runs.values()
    assert (first.state, len(first.history)) == ("failed", 1)
    assert (second.state, second.history) == ("finished", LOGGED)
    assert first.config == second.config


def test_an_offline_run_is_uploaded_whole_by_wandb_sync(tmp_path: Path, server: LoopbackWandb) -> None:
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


LOSES_ITS_SERVER = """
import logging, sys, time
from pathlib import Path
from sweep.trackers import wandb as module
from tests.trackers.test_wandb import CONFIG, RECORD, ROWS
logging.basicConfig(format="%(message)s")
module.LEAN.update(finish_timeout=2, init_timeout=3)
sweep = module.WandbSweep(Path(sys.argv[1]), module.choose_mode("online"), "my-sweep", "rank", 1)
mirrors = [sweep.open(f"t{number}", f"n{number}", CONFIG) for number in range(4)]
slowest = 0.0
for step, row in enumerate(ROWS):
    if step == 20:
        print("half", flush=True)
        sys.stdin.readline()
    for mirror in mirrors:
        started = time.monotonic()
        mirror.log(step, row)
        slowest = max(slowest, time.monotonic() - started)
print("slowest", slowest)
started = time.monotonic()
module.finish_all((mirror, RECORD) for mirror in mirrors)
print("finish", time.monotonic() - started)
started = time.monotonic()
for number in range(4):
    late = sweep.open(f"late{number}", "late", CONFIG)
    late.log(0, ROWS[0])
    late.finish(RECORD)
print("late", time.monotonic() - started)
"""


@pytest.mark.parametrize("fault", ["die", "hang", 500])
def test_a_server_lost_on_the_way_delays_nothing_and_loses_nothing(tmp_path: Path, fault: Any) -> None:
    with LoopbackWandb() as server:
        process = start(LOSES_ITS_SERVER, tmp_path, extra=server.environment())
        assert process.stdout
        assert process.stdout.readline() == "half\n"
        if fault == "die":
            server.die()
        else:
            server.fault = fault
        output, _ = process.communicate("\n", timeout=60)
        ended = time.monotonic()
    assert process.returncode == 0, output
    lines = output.splitlines()
    took = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("W&B")}
    assert took["slowest"] < 1
    assert took["finish"] < 5
    assert took["late"] < 3
    warnings = [line for line in lines if line.startswith("W&B")]
    assert len(warnings) == 4
    assert all("could not finish" in line and "python -m sweep sync" in line for line in warnings)
    assert time.monotonic() - ended < 5

    with LoopbackWandb() as revived:
        sync("--include-online", *tmp_path.glob("wandb/*run-*"), extra=revived.environment())
        assert len(revived.runs) == 8
        for number in range(4):
            assert revived.run_of(f"t{number}").history == LOGGED
            assert revived.run_of(f"t{number}").summary == SUMMARY
            assert revived.run_of(f"late{number}").history == LOGGED[:1]


def test_a_server_lost_between_two_trials_sends_the_next_offline(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(LEAN, "init_timeout", 1)
    sweep = WandbSweep(tmp_path, choose_mode("online"), "my-sweep", "rank", 1)
    server.die()
    mirror = sweep.open("t", "rank=8", CONFIG)
    log_all(mirror)
    mirror.finish(RECORD)
    [run] = written(tmp_path)
    assert (run.history, run.summary) == (LOGGED, SUMMARY)
    [message] = [record.message for record in caplog.records if record.name == "sweep.trackers.wandb"]
    assert message.startswith("W&B: could not open the run of rank=8 (")


# The choice of the mode


PREFLIGHT = """
import logging, sys, time
from pathlib import Path
logging.basicConfig(format="%(message)s")
from sweep.trackers.wandb import choose_mode
from tests.trackers.test_wandb import RECORD, log_all, tracker
started = time.monotonic()
mode = choose_mode("online")
print(mode, time.monotonic() - started, flush=True)
mirror = tracker(Path(sys.argv[1]), mode)
log_all(mirror)
mirror.finish(RECORD)
"""

OBSTACLES = {
    "no key": "W&B: no API key for {url}; run `wandb login` or set WANDB_API_KEY. ",
    "wrong key": "invalid api key (if the key is wrong: `wandb login --relogin`). ",
    "short key": "API key must have 40+ characters",
    "403": "returned error 403",
    "mode offline": "W&B: WANDB_MODE or wandb's settings say offline; `wandb online` changes that. ",
    "hang": "W&B: no good answer from {url} in 10 s (is the network up?). ",
    "500": "W&B: no good answer from {url} in 10 s (is the network up?). ",
    "dead": "W&B: no good answer from http://127.0.0.1:9 in 10 s (is the network up?). ",
    "no such host": "W&B: no good answer from http://nowhere.invalid in 10 s (is the network up?). ",
}


@pytest.fixture(scope="module")
def preflights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, str, str]]]:
    """Every obstacle met at the same time, as each costs up to 10 s: the folder, server and output of each."""
    with ExitStack() as stack:
        servers, processes = {}, {}
        for obstacle in OBSTACLES:
            folder = tmp_path_factory.mktemp("preflight")
            server = stack.enter_context(LoopbackWandb())
            faults: dict[str, Fault] = {"hang": "hang", "500": 500, "403": 403}
            server.fault = faults.get(obstacle)
            environment = {**clean_environment(folder), **server.environment()}
            match obstacle:
                case "no key":
                    del environment["WANDB_API_KEY"]
                case "wrong key":
                    environment["WANDB_API_KEY"] = "w" * 40
                case "short key":
                    environment["WANDB_API_KEY"] = "abc"
                case "mode offline":
                    environment["WANDB_MODE"] = "offline"
                case "dead":
                    environment["WANDB_BASE_URL"] = "http://127.0.0.1:9"
                case "no such host":
                    environment["WANDB_BASE_URL"] = "http://nowhere.invalid"
            servers[obstacle] = server
            processes[obstacle] = (folder, start(PREFLIGHT, folder, environment=environment))
        yield {
            obstacle: (folder, servers[obstacle].url, process.communicate(timeout=60)[0])
            for obstacle, (folder, process) in processes.items()
        }


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_obstacle_means_offline_soon_and_one_line(
    obstacle: str, preflights: dict[str, tuple[Path, str, str]]
) -> None:
    folder, url, output = preflights[obstacle]
    warning, answer = output.splitlines()
    assert warning.startswith("W&B: ")
    assert OBSTACLES[obstacle].format(url=url) in warning
    assert warning.endswith("upload later with `python -m sweep sync outputs/<sweep>`")
    mode, seconds = answer.split()
    assert mode == "offline"
    assert float(seconds) < 13
    [run] = written(folder)
    assert (run.history, run.summary) == (LOGGED, SUMMARY)


def test_offline_asks_nobody(server: LoopbackWandb) -> None:
    assert choose_mode("offline") == "offline"
    assert server.requests == []


def test_a_key_in_netrc_is_found(tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    host = server.url.removeprefix("http://")
    (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert choose_mode("online") == "online"


def test_settings_that_wandb_refuses_cost_the_mirror_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "nonsense")
    mode = choose_mode("online")
    assert mode == "offline"
    mirror = tracker(tmp_path, mode)
    log_all(mirror)
    mirror.finish(RECORD)
    messages = [record.message for record in caplog.records if record.name == "sweep.trackers.wandb"]
    assert len(messages) == 2
    assert all("base_url Input should be a valid URL" in message for message in messages)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="W&B mode 'on' is not one of offline, online"):
        choose_mode("on")


# Privacy

LEAKY = """
import logging, sys
from pathlib import Path
from tests.trackers.test_wandb import RECORD, choose_mode, log_all, tracker
mirror = tracker(Path(sys.argv[1]), choose_mode(sys.argv[2]))
print("CANARY in the console")
logging.warning("CANARY in the log")
log_all(mirror)
mirror.finish(RECORD)
"""


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_nothing_of_the_machine_leaves_it(tmp_path: Path, server: LoopbackWandb, mode: str) -> None:
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
