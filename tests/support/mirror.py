"""A trial as the tests mirror it to W&B, and a process without the W&B of whoever runs them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import wandb

from sweep.metrics import ACCURACY, TRAIN_LOSS
from sweep.record import Record
from sweep.trackers.wandb import WandbSettings, WandbTracker

if TYPE_CHECKING:
    from analysis.sources.wandb_files import WandbRun

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
METRICS = (TRAIN_LOSS, ACCURACY)
LOGGED = [{"step": step, **row} for step, row in enumerate(ROWS)]


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment with no W&B in it, but for a server that is not there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_ERROR_REPORTING": "false"}
    return {**kept, **nowhere, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def settings(folder: Path, mode: Any = "offline", every: int = 1) -> WandbSettings:
    return WandbSettings(folder, mode, group="my-sweep", ablation="rank", every=every)


def tracker(folder: Path, mode: Any = "offline", trial_id: str = "t", every: int = 1) -> WandbTracker:
    return WandbTracker(settings(folder, mode, every), trial_id, "rank=8", CONFIG, METRICS)


def written(folder: Path) -> "list[WandbRun]":
    """The runs on disk: ``finish`` returns some milliseconds before wandb-core has closed the file."""
    from tests.support.commands import wandb_runs  # imports torch, which the scripts of the tests do without

    wandb.teardown()
    return wandb_runs(folder)


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


def sync(*arguments: object, environment: Mapping[str, str] = os.environ) -> None:
    """Upload runs with wandb's own command."""
    done = start("from wandb.cli.cli import cli; cli()", "sync", *arguments, environment=environment)
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 0, output
