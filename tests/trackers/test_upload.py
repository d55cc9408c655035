"""``python -m sweep sync`` against the loopback server: every row once, whatever happened before."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.trackers.upload import marker, messages, run_files
from sweep.wandb_log import framed
from tests.support.commands import TOY, command, history, records, sweep, wandb_runs
from tests.support.loopback_wandb import LoopbackWandb
from tests.test_claim import holding

pytestmark = pytest.mark.slow


def uploadable(study: Path) -> list[Path]:
    return [file for file in run_files(study) if not marker(file).exists()]


STUDY = (*TOY, "tracker=wandb", "name=s", "-m", "hydra/launcher=packed", "optimizer.lr=0.01,1e30", "seed=0,1")


@pytest.fixture
def server() -> Iterator[LoopbackWandb]:
    with LoopbackWandb() as running:
        yield running


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was mirrored offline: two finished trials, and two that diverged."""
    folder = tmp_path_factory.mktemp("mirrored")
    assert command("sweep", *STUDY, cwd=folder, HOME=str(folder)).returncode == 1
    return folder / "outputs"


@pytest.fixture
def study(mirrored: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    shutil.copytree(mirrored, tmp_path / "outputs")
    return tmp_path / "outputs" / "s"


def sync(study: Path, server: LoopbackWandb, **more: str) -> subprocess.CompletedProcess[str]:
    home = str(study.parents[1])
    return command("sweep", "sync", "outputs/s", cwd=study.parents[1], HOME=home, **server.environment() | more)


def assert_all_rows_once(study: Path, server: LoopbackWandb) -> None:
    left = records(study)
    assert sorted(run.config["trial_id"] for run in server.runs.values()) == sorted(
        one.trial_id for one in left.values()
    )
    for label, one in left.items():
        run = server.run_of(one.trial_id)
        assert (run.name, run.group, run.history) == (label, "s", history(study / label))
        assert (run.state, run.exit_code) == (("finished", 0) if one.finished else ("failed", 1))


def test_upload_sends_every_run_once(study: Path, server: LoopbackWandb) -> None:
    done = sync(study, server)
    assert (done.returncode, done.stdout) == (0, "outputs/s: 4 of 4 W&B runs are on the server\n"), done.stderr
    assert_all_rows_once(study, server)
    sent = len(server.requests)
    again = sync(study, server)
    assert (again.returncode, again.stdout) == (0, "outputs/s: 4 of 4 W&B runs are on the server\n")
    assert len(server.requests) == sent
    assert {path.name for path in study.parents[1].iterdir()} <= {"outputs", ".config", ".cache", ".netrc"}


def test_upload_sends_the_rows_of_killed_processes_once(study: Path, server: LoopbackWandb) -> None:
    for file, lost in zip(uploadable(study), (1, 11, 400), strict=False):
        os.truncate(file, file.stat().st_size - lost)
    runs = {run.id: run for run in wandb_runs(study)}
    assert [run.truncated for run in runs.values()] == [True, True, True, False]
    for _ in range(2):
        assert sync(study, server).returncode == 0
        assert {run.id: run.history for run in server.runs.values()} == {run.id: run.history for run in runs.values()}


def test_upload_names_a_damaged_file_and_leaves_it_alone(study: Path, server: LoopbackWandb) -> None:
    file = uploadable(study)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = sync(study, server)
    assert (done.returncode, done.stdout) == (1, "outputs/s: 3 of 4 W&B runs are on the server\n")
    assert f"{file.relative_to(study.parents[1])}: damaged at byte" in done.stderr
    assert file.read_bytes() == content
    assert len(server.runs) == 3


@pytest.mark.parametrize("received", [True, False])
def test_upload_that_broke_off_is_made_again_without_a_duplicate(
    received: bool, study: Path, server: LoopbackWandb
) -> None:
    """The server takes the rows of one run, or does not, and refuses everything from then on."""
    answer = server.answer

    def breaks_off(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if b"wandb-history" not in body:
            return answer(method, path, body)
        server.fault = 403
        if received:
            answer(method, path, body.replace(b'"complete":true', b'"complete":false'))
        return 403, b"{}"

    server.answer = breaks_off  # type: ignore[method-assign]
    done = sync(study, server)
    assert done.returncode == 1
    assert "not uploaded; the same command tries again" in done.stderr
    assert any(run.history for run in server.runs.values()) == received
    server.answer, server.fault = answer, None  # type: ignore[method-assign]
    done = sync(study, server)
    assert done.returncode == 0, done.stderr
    assert_all_rows_once(study, server)


def test_upload_sends_rows_that_the_server_refused_during_training(tmp_path: Path, server: LoopbackWandb) -> None:
    answer = server.answer

    def refuses(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return (403, b"{}") if "file_stream" in path else answer(method, path, body)

    server.answer = refuses  # type: ignore[method-assign]
    arguments = (*TOY, "name=s", "-m", "hydra/launcher=packed", "seed=0,1", "tracker=wandb_online")
    sweep(*arguments, cwd=tmp_path, HOME=str(tmp_path), **server.environment())
    assert not any(run.history for run in server.runs.values())
    server.answer = answer  # type: ignore[method-assign]
    for _ in range(2):
        assert sync(tmp_path / "outputs/s", server).returncode == 0
        assert_all_rows_once(tmp_path / "outputs/s", server)


@pytest.mark.parametrize(("fault", "says"), [(403, "403"), ("key", "invalid api key")])
def test_upload_names_an_obstacle_in_one_line_and_loses_nothing(
    fault: str | int, says: str, study: Path, server: LoopbackWandb
) -> None:
    if isinstance(fault, int):
        server.fault = fault
    done = sync(study, server, **({"WANDB_API_KEY": "w" * 40} if fault == "key" else {}))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert len(uploadable(study)) == 4


def test_upload_gives_up_a_server_that_hangs(
    study: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep.trackers import upload

    for key, value in server.environment().items():
        monkeypatch.setenv(key, value)
    server.fault = "hang"
    upload.upload(
        uploadable(study), upload.Destination("local", "lora-sweep"), stalled_s=2
    )  # returns, though nobody answers
    assert len(uploadable(study)) == 4


def test_upload_leaves_trials_in_training_for_later(study: Path, server: LoopbackWandb) -> None:
    busy = next(iter(records(study).values())).trial_id
    with holding(study, busy):
        done = sync(study, server)
        assert done.returncode == 1
        assert done.stdout == "outputs/s: 3 of 4 W&B runs are on the server; 1 are still training\n"
    assert sync(study, server).returncode == 0
    assert_all_rows_once(study, server)


def test_upload_does_not_repeat_what_was_mirrored_online(tmp_path: Path, server: LoopbackWandb) -> None:
    sweep(*TOY, "tracker=wandb_online", "name=s", cwd=tmp_path, HOME=str(tmp_path), **server.environment())
    assert_all_rows_once(tmp_path / "outputs/s", server)
    assert sync(tmp_path / "outputs/s", server).stdout == "outputs/s: 1 of 1 W&B runs are on the server\n"
    assert_all_rows_once(tmp_path / "outputs/s", server)


def forge(file: Path, **run: str) -> None:
    """Add to a run's file a record that sends files and an artifact, and change the record that begins it."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found = messages(file)
    for one in found:
        if one.HasField("run"):
            for key, value in run.items():
                setattr(one.run, key, value)
    sends = Record()
    sends.files.files.add(path="id_rsa")
    steals = Record()
    steals.artifact.name, steals.artifact.type = "a", "model"
    file.write_bytes(framed(one.SerializeToString() for one in (*found[:-1], sends, steals, found[-1])))


def test_sync_sends_no_file_whatever_a_run_says(study: Path, server: LoopbackWandb, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("PRIVATE KEY")
    for file in uploadable(study):
        (file.parent / "files").mkdir(exist_ok=True)
        (file.parent / "files" / "id_rsa").symlink_to(tmp_path / "id_rsa")
        forge(file, run_id="another-run-of-mine", sweep_id="x")
        assert [one.WhichOneof("record_type") for one in messages(file)][-3:-1] == ["files", "artifact"]
    done = sync(study, server)
    assert done.returncode == 0, done.stderr
    assert_all_rows_once(study, server)
    assert {run.id for run in server.runs.values()} == {file.stem.removeprefix("run-") for file in run_files(study)}
    assert not [request for request in server.requests if "id_rsa" in str(request) or "PRIVATE" in str(request)]


def test_sync_goes_where_the_user_says_and_says_it_first(study: Path, server: LoopbackWandb) -> None:
    first, *_ = uploadable(study)
    forge(first, project="theirs", entity="somebody")
    done = sync(study, server)
    assert (done.returncode, done.stdout) == (1, "outputs/s: 3 of 4 W&B runs are on the server\n")
    assert done.stderr.startswith("uploading 4 runs to local/lora-sweep on http://127.0.0.1:")
    assert "it says that it belongs to somebody/theirs; --entity and --project say where it goes" in done.stderr
    assert {run.project for run in server.runs.values()} == {"lora-sweep"}
    home = str(study.parents[1])
    line = ("sweep", "sync", "outputs/s", "--project", "mine")
    done = command(*line, cwd=study.parents[1], HOME=home, **server.environment())
    assert done.returncode == 0, done.stderr
    assert [run.project for run in server.runs.values()].count("mine") == 1


def test_run_files_are_no_links(study: Path, tmp_path: Path) -> None:
    first, second, *rest = run_files(study)
    first.rename(tmp_path / "x")
    first.symlink_to(tmp_path / "x")
    second.parent.rename(tmp_path / "y")
    second.parent.symlink_to(tmp_path / "y")
    assert run_files(study) == rest
    (study / "wandb").rename(tmp_path / "z")
    (study / "wandb").symlink_to(tmp_path / "z")
    assert run_files(study) == []
