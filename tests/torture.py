"""``make torture``: kill sweeps at random moments, break what they stand on, and print what was observed.

Every check is an assertion: the table is printed only where all of them hold. A shorter form runs in the tests.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import analysis
from analysis.errors import BadRequestError
from analysis.wandb_files import read_runs
from tests.commands import PATH, command, history, records, untimed
from tests.loopback_wandb import KEY, LoopbackWandb

GRID = ("adapter.rank=2,8", "adapter.init=kaiming,pissa", "name=s", "task=toy_regression", "training.log_every=100")
LAUNCHERS = {
    "packed, one process": ("hydra/launcher=packed", "hydra.launcher.max_pack=8", "hydra.launcher.workers=1"),
    "packed, two processes": ("hydra/launcher=packed", "hydra.launcher.max_pack=8", "hydra.launcher.workers=2"),
    "basic": ("hydra/launcher=basic",),
}
Sweep = tuple[str, ...]


def grid(trials: int, steps: int) -> Sweep:
    """The command line of a sweep of ``trials`` trials, two ranks by two initialisations by seeds."""
    return ("-m", *GRID, f"training.steps={steps}", f"seed={','.join(map(str, range(trials // 4)))}")


@contextmanager
def launched(cwd: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep that runs, in a process group of its own that is gone after the block."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HYDRA_"))}
    everything = kept | {"PYTHONPATH": PATH, "HOME": str(cwd), "WANDB_ERROR_REPORTING": "false"} | environment
    line = [sys.executable, "-m", "sweep", *arguments]
    with subprocess.Popen(
        line, cwd=cwd, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def finish(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sweep`` to its end."""
    return command("sweep", *arguments, cwd=cwd, HOME=str(cwd), **environment)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def report(study: Path) -> dict[str, bytes]:
    """Every file of the report on ``study``, with the timings taken out of the records before."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "s")
        shutil.copytree(study, copy, ignore=shutil.ignore_patterns("wandb", ".analysis", "report", ".lock"))
        for path in copy.glob("*/record.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"perf": {}}))
            os.utime(path, (0, 0))
        done = command("analysis", "report", "s", cwd=Path(place))
        assert done.returncode == 0, done.stderr
        return {str(path.relative_to(copy)): path.read_bytes() for path in sorted(copy.glob("report/**/*")) if path.is_file()}  # fmt: skip


def same(study: Path, reference: Path, reports: bool = False) -> int:
    """Check that two sweeps left the same, timings aside; return how many rows of history that were."""
    found, expected = records(study), records(reference)
    assert {label: untimed(one) for label, one in found.items()} == {label: untimed(one) for label, one in expected.items()}  # fmt: skip
    for label in expected:
        assert (study / label / "history.jsonl").read_bytes() == (reference / label / "history.jsonl").read_bytes()
        attempts = (study / label / "trial.log").read_text().splitlines()
        assert sum(line.endswith(" finished") for line in attempts) <= 1, "a finished trial was trained again"
    runs = {run.name: run for run in read_runs(study / "wandb")}
    assert len(runs) == len(list(study.glob("wandb/*run-*"))) == len(expected), "not one W&B run for each trial"
    for label in expected:
        assert runs[label].history == history(study / label)
    assert not reports or report(study) == report(reference)
    return sum(len(history(study / label)) for label in expected)


def kill_at_random(arguments: Sweep, kills: int, place: Path, seed: int = 0) -> tuple[int, int]:
    """Kill sweeps of one command line ``kills`` times, each launch at a random moment, and start it again.

    Half of the time the whole process group is killed, else only the process that was launched. A sweep that
    is finished is compared with an uninterrupted one, and the next is begun.

    Returns:
        How many sweeps were finished, and how many rows of history each has.

    """
    chance = random.Random(seed)
    (place / "whole").mkdir(parents=True)
    began = time.monotonic()
    done = finish(place / "whole", *arguments)
    assert done.returncode == 0, done.stderr
    whole_s = time.monotonic() - began
    sweeps = rows = 0
    while kills > 0:
        cwd = place / str(sweeps)
        cwd.mkdir()
        study = cwd / "outputs" / "s"
        finished: dict[Path, tuple[int, bytes]] = {}
        while True:
            with launched(cwd, *arguments) as process:
                moment = chance.uniform(0.05, 0.6) * whole_s
                ended = kills == 0
                if not ended:
                    try:
                        process.wait(moment)
                        ended = True
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL) if chance.random() < 0.5 else process.kill()
                        kills -= 1
                said = process.communicate()[1]
                assert not ended or process.returncode == 0, said
            now = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in study.glob("*/record.json")}
            assert finished.items() <= now.items(), "a finished trial was lost or written again"
            finished = now
            table_has_no_partial_row(study, len(finished))
            if ended:
                break
        rows = same(study, place / "whole" / "outputs" / "s", reports=True)
        shutil.rmtree(cwd)
        sweeps += 1
        print(f"  {sweeps} sweeps compared, {kills} kills to go", file=sys.stderr)
    return sweeps, rows


def table_has_no_partial_row(study: Path, finished: int) -> None:
    """Check that the analysis of a broken sweep sees exactly the finished trials, each with its result."""
    try:
        seen = analysis.load(study)
    except BadRequestError:
        assert finished == 0
        return
    assert len(seen.trials) == finished
    assert seen.trials["eval/loss"].notna().all()
    assert not seen.problems


# Faults: each returns what was observed, in words, and asserts that it is what was promised

SMALL = grid(8, 1000)
ONE_BY_ONE = ("hydra.launcher.max_pack=1", "hydra.launcher.workers=1")


def reference(place: Path) -> Path:
    """What the small sweep leaves when nothing happens to it."""
    folder = place / "reference"
    if not folder.exists():
        folder.mkdir()
        assert finish(folder, *SMALL).returncode == 0
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
    import psutil

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
    for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130)):
        with launched(cwd, *SMALL, "training.steps=20000", *ONE_BY_ONE) as process:
            wait_for(lambda: (cwd / "outputs/s/wandb").exists())
            time.sleep(0.5)
            os.killpg(process.pid, how)
            said = process.communicate(timeout=60)[1]
        assert process.returncode == code
        assert said == "lora-sweep: interrupted; the same command goes on with what is not finished\n"
        assert all(not run.truncated for run in read_runs(cwd / "outputs/s"))
    shutil.rmtree(cwd / "outputs" / "s")
    return "W&B runs closed, one line that says how to go on, exit code 130"


def full_disk(cwd: Path, place: Path) -> str:
    """No space is left for the rows of one trial (/dev/full is a disk that is always full)."""
    label = sorted(records(reference(place)))[3]
    folder = cwd / "outputs" / "s" / label
    folder.mkdir(parents=True)
    (folder / "history.jsonl").symlink_to("/dev/full")
    done = finish(cwd, *SMALL)
    assert done.returncode == 1
    assert "No space left on device; what is finished is safe" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (folder / "history.jsonl").unlink()
    goes_on(cwd, place)
    return "one line that names the folder, exit code 1; with space, the same command goes on"


def vanished_folder(cwd: Path, place: Path) -> str:
    """Somebody deletes the output folder while the sweep trains."""
    with launched(cwd, *SMALL, "training.steps=100000", "tracker=none") as process:
        wait_for(lambda: len(list(cwd.glob("outputs/s/*/trial.log"))) == 2 * 4)
        shutil.rmtree(cwd / "outputs", ignore_errors=True)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert len(said.splitlines()) == 1, said
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
    assert len(done.stderr.splitlines()) == 1
    return "half a file: a warning, the base is trained again, same result; no file: one line, exit code 1"


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
                    began = time.monotonic()
                    server.die() if fault == "dies" else setattr(server, "fault", fault)
                    said = process.communicate(timeout=300)[1]
                    code, took = process.returncode, time.monotonic() - began
                assert took < 90, f"the launch hung for {took} s"
            assert code == 0, said
        left = records(cwd / "outputs" / "s")
        assert {label: untimed(one) for label, one in left.items()} == {label: untimed(one) for label, one in records(reference(place)).items()}  # fmt: skip
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


def many_trials(place: Path, trials: int = 2000, files: int = 1024) -> str:
    """One sweep of ``trials`` trials where a process may have no more than ``files`` open files."""
    import psutil

    place.mkdir(parents=True, exist_ok=True)
    code = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files})); sys.argv[0] = 'sweep'; runpy.run_module('sweep', run_name='__main__')"  # fmt: skip
    arguments = ("-m", "task=toy_regression", "training.steps=50", "name=many", "hydra/launcher=packed", f"seed=range({trials})")  # fmt: skip
    environment = os.environ | {"PYTHONPATH": PATH, "HOME": str(place)}
    began, most_files, most_memory = time.monotonic(), 0, 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=place, env=environment, stdout=said, stderr=said)  # fmt: skip
        while process.poll() is None:
            try:
                for one in (mother := psutil.Process(process.pid), *mother.children(recursive=True)):
                    most_files = max(most_files, one.num_fds())
                    most_memory = max(most_memory, one.memory_info().rss)
            except psutil.Error:
                pass
            time.sleep(0.2)
        said.seek(0)
        assert process.returncode == 0, said.read()[-2000:]
    took = time.monotonic() - began
    study = place / "outputs" / "many"
    assert sum(one.finished for one in records(study).values()) == trials
    assert len(read_runs(study / "wandb")) == trials
    return f"{trials} of {trials} finished in {took:.0f} s; at most {most_files} open files and {most_memory / 1e6:.0f} MB in a process"  # fmt: skip


def main() -> None:
    """Print the whole table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="for each launcher (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=2000, help="of the largest sweep (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=1000, help="random command lines (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print(f"# Reliability\n\nPrinted by `make torture` ({platform.system()}, {os.cpu_count()} cores, torch {torch.__version__}). Every line was checked; had a\ncheck failed, there would be no table.\n")  # fmt: skip
        print("## Killed at random moments (SIGKILL), started again by the same command\n")
        print(
            "| launcher | trials | kills | sweeps compared | finished trials lost | trained twice | rows lost | report |"
        )
        print("|:---|---:|---:|---:|---:|---:|---:|:---|")
        for number, (name, launcher) in enumerate(LAUNCHERS.items()):
            print(name, file=sys.stderr)
            sweeps, rows = kill_at_random((*grid(64, 2000), *launcher), options.kills, place / f"kills{number}", number)
            print(f"| {name} | 64 | {options.kills} | {sweeps} | 0 | 0 | 0 of {sweeps * rows:,} | byte-identical |", flush=True)  # fmt: skip
        print("\nByte-identical: every file of the report, made from records without their timings.\n")
        print("## Faults\n\n| fault | observed |\n|:---|:---|")
        for name in FAULTS:
            print(name, file=sys.stderr)
            print(f"| {name} | {happens(name, place)} |", flush=True)
        print(
            f"| {options.trials} trials, RLIMIT_NOFILE 1024 | {many_trials(place / 'many', options.trials)} |",
            flush=True,
        )
        from tests.fuzz import try_command_lines

        print(f"| {options.inputs} random command lines | {try_command_lines(options.inputs, place / 'fuzz')} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
