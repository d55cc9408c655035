"""The fault table: what is broken under a sweep. Each returns what was observed, in words, and asserts that it was promised."""

import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.support.commands import command, history, records, untimed, wandb_runs
from tests.support.loopback_wandb import KEY, LoopbackWandb
from tests.support.sweeps import finish, grid, launched, same, uninterrupted, wait_for

SMALL = grid(8, 1000)
LARGEST_FILE = 40_000
"""Bytes of a file where the disk is full: more than all that is written before the first row."""
ONE_BY_ONE = ("hydra.launcher.max_pack=1", "hydra.launcher.workers=1")


def reference(place: Path) -> Path:
    """What the small sweep leaves when nothing happens to it."""
    folder = place / "reference"
    if not folder.exists():
        folder.mkdir()
        uninterrupted(folder, *SMALL)
    return folder / "outputs" / "s"


def goes_on(cwd: Path, place: Path, **environment: str) -> None:
    """Check that the same command finishes the sweep as if nothing had happened."""
    done = finish(cwd, *SMALL, **environment)
    assert done.returncode == 0, done.stderr
    same(cwd / "outputs" / "s", reference(place))


def diverging(cwd: Path, place: Path) -> str:
    """Half of the trials diverge: their mates are as ever."""
    done = finish(cwd, *SMALL, "optimizer.lr=0.01,1e30")
    assert done.returncode == 1
    left = records(cwd / "outputs" / "s")
    assert sorted(one.status for one in left.values()) == ["diverged"] * 8 + ["finished"] * 8
    healthy = {label: untimed(one) for label, one in left.items() if one.finished}
    assert healthy == {label: untimed(one) for label, one in records(reference(place)).items()}
    return "8 records say at which step, the 8 others are as alone, exit code 1"


def killed_worker(cwd: Path, place: Path) -> str:
    """The system's memory killer takes one worker."""
    arguments = (*SMALL, "training.steps=20000", "hydra.launcher.workers=2", "hydra.launcher.max_pack=2")
    with launched(cwd, *arguments) as process:
        wait_for(lambda: len(list(cwd.glob("outputs/s/*/trial.log"))) >= 2)
        busiest = max(psutil.Process(process.pid).children(recursive=True), key=lambda p: p.cpu_times().user)
        busiest.kill()
        said = process.communicate()
    assert process.returncode == 0, said
    assert len(records(cwd / "outputs" / "s")) == 8
    return "its pack was trained again in a process of its own; 8 of 8 trials finished, exit code 0"


def interrupted(cwd: Path, place: Path) -> str:
    """Ctrl-C, and a scheduler's SIGTERM."""
    for how in (signal.SIGINT, signal.SIGTERM):
        folder = cwd / how.name
        folder.mkdir()
        with launched(folder, *SMALL, "training.steps=20000", *ONE_BY_ONE) as process:
            wait_for((folder / "outputs/s/wandb").exists)
            time.sleep(0.5)
            os.killpg(process.pid, how)
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 130, said
        assert said == "lora-sweep: interrupted; the same command continues with what is not finished\n"
        assert all(not run.truncated for run in wandb_runs(folder / "outputs/s"))
    return "W&B runs closed, one line that says how to go on, exit code 130"


def full_disk(cwd: Path, place: Path) -> str:
    """No space is left for the rows of a trial: a limit on the size of a file stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, before[1]))
    try:
        done = finish(cwd, *SMALL, "training.log_every=1", "tracker=none", fresh=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 1
    assert "File too large; what is finished is safe" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    goes_on(cwd, place)
    return "one line that names the folder, exit code 1; with space, the same command goes on"


def vanished_folder(cwd: Path, place: Path) -> str:
    """Somebody deletes the output folder while the sweep trains."""
    with launched(cwd, *SMALL, "training.steps=100000", "tracker=none") as process:
        wait_for(lambda: any(path.stat().st_size for path in cwd.glob("outputs/s/*/history.jsonl")))
        shutil.rmtree(cwd / "outputs", ignore_errors=True)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert len(said.splitlines()) == 1, said
    assert "is safe" not in said
    shutil.rmtree(cwd / "outputs", ignore_errors=True)
    goes_on(cwd, place)
    return "one line that names the folder, exit code 1"


def read_only_folder(cwd: Path, place: Path) -> str:
    """The output folder takes no file (/sys refuses even the superuser)."""
    (cwd / "outputs").symlink_to("/sys")
    done = finish(cwd, *SMALL)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("lora-sweep: [Errno ")
    return "one line with the system's reason and the path, exit code 1"


def damaged_files(cwd: Path, place: Path) -> str:
    """Cut histories, a record that lacks its result, another that is no JSON, leftovers, files from the future."""
    assert finish(cwd, *SMALL).returncode == 0
    study = cwd / "outputs" / "s"
    folders = [study / label for label in sorted(records(study))]
    rows = (folders[0] / "history.jsonl").read_bytes()
    (folders[0] / "history.jsonl").write_bytes(rows[: len(rows) // 2])
    (folders[1] / "history.jsonl").unlink()
    (folders[2] / "record.json").write_text('{"format": 1}')
    (folders[3] / "record.json").write_bytes(b"")
    (folders[4] / ".record.json.x1y2z3").write_bytes(b"half")
    for path in study.rglob("*"):
        os.utime(path, (2**31, 2**31))
    done = finish(cwd, *SMALL)
    assert done.returncode == 1
    assert done.stderr.count("delete it to run that trial again") == 2
    for folder in folders[2:4]:
        (folder / "record.json").unlink()
    for folder in folders[:4]:
        (folder / "trial.log").unlink()
    goes_on(cwd, place)
    return "cut histories are trained again; damaged records are all named with what to do; dates do not matter"


def damaged_cache(cwd: Path, place: Path) -> str:
    """The cached base is half written, then not a file at all."""
    arguments = ("task=transformer_tiny", "training.steps=2", "task.pretraining.steps=5", "name=c", "tracker=none")
    assert finish(cwd, *arguments).returncode == 0
    [base] = cwd.glob("outputs/.cache/bases/*.safetensors")
    [(label, first)] = records(cwd / "outputs/c").items()
    base.write_bytes(base.read_bytes()[:5000])
    shutil.rmtree(cwd / "outputs/c" / label)
    done = finish(cwd, *arguments)
    assert done.returncode == 0
    assert "cannot be read" in done.stdout
    assert untimed(records(cwd / "outputs/c")[label]) == untimed(first)
    base.unlink()
    base.mkdir()
    shutil.rmtree(cwd / "outputs/c" / label)
    done = finish(cwd, *arguments)
    assert done.returncode == 1
    [_, said] = done.stderr.splitlines()  # Hydra's own line says which job it was
    assert said == f"lora-sweep: [Errno 21] Is a directory: '{base.relative_to(cwd)}'"
    return "half a file: a warning, the base is trained again, same result; no file: one line of ours, exit code 1"


def two_launches(cwd: Path, place: Path) -> str:
    """The same command twice at once, and the first of them killed."""
    for kill in (False, True):
        with launched(cwd, *SMALL, *ONE_BY_ONE) as first, launched(cwd, *SMALL, *ONE_BY_ONE) as second:
            if kill:
                wait_for(lambda: list(cwd.glob("outputs/s/*/record.json")))
                first.kill()
            said = second.communicate()
            first.communicate()
            assert second.returncode == 0, said
            assert kill or first.returncode == 0
        same(cwd / "outputs" / "s", reference(place))
        shutil.rmtree(cwd / "outputs" / "s")
    return "both share the work, no trial is written twice; what the killed one held, the other trains"


def wandb_outage(fault: Any, key: str = KEY) -> Callable[[Path, Path], str]:
    """The W&B server behaves badly from the moment when half of the trials are done; later all is uploaded."""

    def happens(cwd: Path, place: Path) -> str:
        with LoopbackWandb() as server:
            environment = server.environment() | {"WANDB_API_KEY": key}
            if fault == "wrong key":
                done = finish(cwd, *SMALL, *ONE_BY_ONE, "tracker=wandb_online", **environment)
                code, said = done.returncode, done.stderr
            else:
                with launched(cwd, *SMALL, *ONE_BY_ONE, "tracker=wandb_online", **environment) as process:
                    wait_for(lambda: len(list(cwd.glob("outputs/s/*/record.json"))) >= 4)
                    server.die() if fault == "dies" else setattr(server, "fault", fault)
                    said = process.communicate(timeout=300)[1]
                    code = process.returncode
            assert code == 0, said
        left = records(cwd / "outputs" / "s")
        assert {label: untimed(one) for label, one in left.items()} == {
            label: untimed(one) for label, one in records(reference(place)).items()
        }
        rows = sum(len(history(cwd / "outputs" / "s" / label)) for label in left)
        with LoopbackWandb() as again:
            done = command("sweep", "sync", "outputs/s", cwd=cwd, HOME=str(cwd), **again.environment())
            assert done.returncode == 0 or fault not in ("dies", "wrong key"), done.stderr
            uploaded = sum(len(run.history) for run in again.runs.values())
            assert uploaded == rows, (uploaded, rows)
        return f"8 of 8 trials finished, exit code 0; `sync` then uploads {uploaded} of {rows} rows"

    return happens


FAULTS: dict[str, Callable[[Path, Path], str]] = {
    "trials that diverge": diverging,
    "a worker killed by the system": killed_worker,
    "Ctrl-C, SIGTERM": interrupted,
    "the same command twice at once": two_launches,
    "a full disk": full_disk,
    "a read-only output folder": read_only_folder,
    "an output folder that vanishes": vanished_folder,
    "cut, damaged and wrongly dated files": damaged_files,
    "a half-written or unreadable cached base": damaged_cache,
    "W&B: wrong key": wandb_outage("wrong key", "w" * 40),
    "W&B: server dies": wandb_outage("dies"),
    "W&B: server hangs": wandb_outage("hang"),
    "W&B: 403": wandb_outage(403),
    "W&B: 500": wandb_outage(500),
}


def happens(name: str, place: Path) -> str:
    """Let one of ``FAULTS`` happen in a fresh folder of ``place``; return what was observed."""
    cwd = Path(tempfile.mkdtemp(dir=place))
    return FAULTS[name](cwd, place)
