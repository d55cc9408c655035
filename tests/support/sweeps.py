"""A sweep in a process of its own, and whether it left what an uninterrupted one leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import PATH, command, history, records, untimed, wandb_runs

GRID = ("adapter.rank=2,8", "adapter.init=kaiming,pissa", "name=s", "task=toy_regression", "training.log_every=100")
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


def finish(cwd: Path, *arguments: str, fresh: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sweep`` to its end."""
    return command("sweep", *arguments, cwd=cwd, fresh=fresh, HOME=str(cwd), **environment)


def uninterrupted(cwd: Path, *arguments: str, **environment: str) -> Path:
    """The folder that the sweep leaves when nothing happens to it."""
    with launched(cwd, *arguments, **environment) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    return cwd / "outputs" / "s"


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def report(study: Path) -> dict[str, bytes]:
    """Every file of the report on ``study``, made from records without their timings."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "s")
        shutil.copytree(study, copy, ignore=shutil.ignore_patterns("wandb", "slurm", ".*", "report"))
        for path in copy.glob("*/record.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"perf": {}}))
            os.utime(path, (0, 0))
        done = command("analysis", "report", "s", cwd=Path(place))
        assert done.returncode == 0, done.stderr
        return {
            str(path.relative_to(copy)): path.read_bytes()
            for path in sorted(copy.glob("report/**/*"))
            if path.is_file()
        }


def same(study: Path, reference: Path) -> int:
    """Check that two sweeps left the same, timings aside; return how many rows of history that were."""
    found, expected = records(study), records(reference)
    assert {label: untimed(one) for label, one in found.items()} == {
        label: untimed(one) for label, one in expected.items()
    }
    for label in expected:
        assert (study / label / "history.jsonl").read_bytes() == (reference / label / "history.jsonl").read_bytes()
        attempts = (study / label / "trial.log").read_text().splitlines()
        assert sum(line.endswith((" finished", " pruned")) for line in attempts) <= 1, (
            "a finished trial was trained again"
        )
    runs = {run.name: run for run in wandb_runs(study / "wandb")}
    assert len(runs) == len(list(study.glob("wandb/*run-*"))) == len(expected), "not one W&B run for each trial"
    for label in expected:
        assert runs[label].history == history(study / label)
    return sum(len(history(study / label)) for label in expected)
