"""Whether a sweep is mirrored online: decided once, soon, and in one line where something is in the way."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sweep.trackers.wandb import choose_mode
from tests.support.loopback_wandb import KEY, Fault, LoopbackWandb
from tests.support.mirror import LOGGED, RECORD, SUMMARY, clean_environment, log_all, start, tracker, written

pytestmark = pytest.mark.usefixtures("clean_wandb")

PREFLIGHT = """
import logging, sys
from pathlib import Path
logging.basicConfig(format="%(message)s")
from sweep.trackers.wandb import choose_mode
from tests.support.mirror import RECORD, log_all, tracker
mode = choose_mode("online")
print(mode, flush=True)
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


@pytest.mark.slow
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_choose_mode_is_offline_with_one_line_where_something_is_in_the_way(
    obstacle: str, preflights: dict[str, tuple[Path, str, str]]
) -> None:
    folder, url, output = preflights[obstacle]
    warning, mode = output.splitlines()
    assert warning.startswith("W&B: ")
    assert OBSTACLES[obstacle].format(url=url) in warning
    assert warning.endswith("upload later with `python -m sweep sync outputs/<sweep>`")
    assert mode == "offline"
    [run] = written(folder)
    assert (run.history, run.summary) == (LOGGED, SUMMARY)


def test_choose_mode_offline_asks_nobody(server: LoopbackWandb) -> None:
    assert choose_mode("offline") == "offline"
    assert server.requests == []


def test_choose_mode_finds_a_key_in_netrc(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    host = server.url.removeprefix("http://")
    (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert choose_mode("online") == "online"


def test_choose_mode_with_settings_that_wandb_refuses_costs_the_mirror_only(
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
