"""A sweep on a real SLURM: trials are cancelled, preempted and run out of time, the driver is killed, nothing is lost."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tests.support.commands import PATH, TOY, command, history, records, start, sweep, untimed
from tests.support.loopback_slurm import missing, slurm
from tests.support.plugins import install_example
from tests.support.sweeps import wait_for

submitit = pytest.importorskip("submitit.core.utils", reason="submitit is not installed: pip install lora-sweep[slurm]")
pytestmark = [pytest.mark.slow, pytest.mark.torture, pytest.mark.skipif(bool(missing()), reason=missing())]

SWEEP = (
    "-m",
    "hydra/launcher=packed",
    "task=toy_regression",
    "name=s",
    "tracker=none",
    "adapter.rank=2,3,5",
    "seed=0,1",
    "training.log_every=100",
    "training.steps=3000",
    "training.eval_every=1500",
)
DEADLINE_S = 150.0


@pytest.fixture(scope="module")
def loopback() -> Iterator[dict[str, str]]:
    with slurm() as environment:
        yield environment


def resolved(environment: dict[str, str]) -> dict[str, str]:
    """The state of every trial that waits or runs."""
    line = ["squeue", "--noheader", "--array", "--format=%i %T"]
    answer = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=True)
    return dict(line.split() for line in answer.stdout.splitlines())  # type: ignore[misc]


def scontrol(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run(["scontrol", *arguments], env=os.environ | environment, check=True)


def keep_frozen(folder: Path, trial: str) -> None:
    """Freeze the process that trains for ``trial`` once it does, again and again: SLURM wakes it up before it ends it."""
    wait_for(lambda: begun(folder, trial), DEADLINE_S)
    array, _, task = trial.partition("_")
    mine = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task, "SLURM_PROCID": "0"}
    workers = [
        one for one in psutil.process_iter(["cmdline"]) if "submitit.core._submit" in (one.info["cmdline"] or ())
    ]
    [process] = [one for one in workers if mine.items() <= one.environ().items() and one.name().startswith("python")]
    with suppress(psutil.NoSuchProcess):
        while process.is_running():
            process.suspend()
            time.sleep(0.01)


def trials(folder: Path, trial: str) -> set[str]:
    """The folders of the trials that a trial trains, each being a pack of one rank."""
    [parcel] = submitit.DelayedSubmission.load(folder / "slurm" / f"{trial}_submitted.pkl").args
    return {path.name for path in folder.glob(f"r{parcel['configs'][0]['adapter']['rank']}-*")}


def begun(folder: Path, trial: str) -> bool:
    return any(
        "in a pack of" in path.read_text()
        for name in trials(folder, trial)
        for path in (folder / name).glob("trial.log")
    )


def test_slurm_engine_trains_the_init_of_a_plugin(loopback: dict[str, str], tmp_path: Path) -> None:
    path = {"PYTHONPATH": os.pathsep.join((PATH, str(install_example(tmp_path / "site"))))}
    asked = ("-m", "hydra/launcher=packed", *TOY, "name=s", "adapter.init=kaiming,example_init")
    sweep(*asked, cwd=tmp_path / "local", **path)
    sweep(*asked, "hydra.launcher.engine=slurm", cwd=tmp_path / "slurm", **path, **loopback)
    found, expected = (records(tmp_path / place / "outputs" / "s") for place in ("slurm", "local"))
    assert [one.trial["adapter"]["init"] for one in found.values()] == ["example_init", "kaiming"]
    assert {name: untimed(one) for name, one in found.items()} == {name: untimed(one) for name, one in expected.items()}
    assert all("eval/stable_rank" in one.result for one in found.values())


def test_slurm_engine_says_in_one_line_that_a_job_is_not_taken(loopback: dict[str, str], tmp_path: Path) -> None:
    more = ("hydra.launcher.engine=slurm", "+hydra.launcher.slurm.partition=nowhere")
    done = command("sweep", *SWEEP, *more, cwd=tmp_path, **loopback)
    assert done.returncode == 1
    assert "hydra.launcher: SLURM does not take this job" in done.stderr
    assert "invalid partition" in done.stderr


def test_slurm_engine_leaves_equal_records_whatever_becomes_of_a_job(loopback: dict[str, str], tmp_path: Path) -> None:
    local = start("sweep", *SWEEP, cwd=tmp_path / "local")
    there = (*SWEEP, "hydra.launcher.engine=slurm", "hydra.launcher.workers=3")
    folder = tmp_path / "slurm" / "outputs" / "s"

    first = start("sweep", *there, cwd=tmp_path / "slurm", **loopback)
    wait_for(lambda: len(resolved(loopback)) == 3 or first.poll() is not None, DEADLINE_S)
    slow, preempted, cancelled = sorted(resolved(loopback))
    for trial in (slow, preempted):
        Thread(target=keep_frozen, args=(folder, trial), daemon=True).start()
    wait_for(lambda: begun(folder, slow) and begun(folder, preempted), DEADLINE_S)
    scontrol(loopback, "update", f"JobId={slow}", "EndTime=now+1")  # its time limit, which SLURM looks at every 30 s
    scontrol(loopback, "requeue", preempted)
    subprocess.run(["scancel", cancelled], env=os.environ | loopback, check=True)
    output, errors = first.communicate(timeout=DEADLINE_S)
    assert first.returncode == 1, output + errors
    found = records(folder)
    said = [
        found[name].error["message"] if found[name].error else found[name].status
        for trial in (slow, preempted, cancelled)
        for name in trials(folder, trial)
    ]
    assert said[0].startswith(f"SLURM job {slow} ended as TIMEOUT without a result; raise hydra.launcher.minutes")
    assert said[4].startswith(f"SLURM job {cancelled} ended as CANCELLED without a result")
    assert said == [said[0], said[0], "finished", "finished", said[4], said[4]]
    again = trials(folder, slow) | trials(folder, preempted)
    done = {name: one for name, one in found.items() if one.finished}

    second = start("sweep", *there, cwd=tmp_path / "slurm", **loopback)
    wait_for(lambda: len(resolved(loopback)) == 2 or second.poll() is not None, DEADLINE_S)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    third = command("sweep", *there, cwd=tmp_path / "slurm", **loopback)  # while the trials of the second are there
    assert third.returncode == 0, third.stderr
    errors = local.communicate(timeout=DEADLINE_S)[1]
    assert local.returncode == 0, errors
    found, expected = records(folder), records(tmp_path / "local" / "outputs" / "s")
    assert {name: untimed(one) for name, one in found.items()} == {name: untimed(one) for name, one in expected.items()}
    assert {name: found[name] for name in done} == done
    for name in found:
        assert history(folder / name) == history(tmp_path / "local" / "outputs" / "s" / name)
        attempts = (folder / name / "trial.log").read_text().count("in a pack of")
        assert attempts == 2 if name in again else attempts <= 2
