"""One sweep of thousands of trials, where a process may have few open files."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.commands import PATH, records, wandb_runs

FILES = 1024
"""RLIMIT_NOFILE of the sweep."""


def many_trials(place: Path, trials: int) -> str:
    """One sweep of ``trials`` trials where a process may have no more than ``FILES`` open files."""
    place.mkdir(parents=True, exist_ok=True)
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, "
        f"{FILES})); sys.argv[0] = 'sweep'; runpy.run_module('sweep', run_name='__main__')"
    )
    arguments = (
        "-m",
        "task=toy_regression",
        "training.steps=50",
        "name=many",
        "hydra/launcher=packed",
        f"seed=range({trials})",
    )
    environment = os.environ | {"PYTHONPATH": PATH, "HOME": str(place)}
    began, most_files, most_memory = time.monotonic(), 0, 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=place, env=environment, stdout=said, stderr=said
        )
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
    assert len(wandb_runs(study / "wandb")) == trials
    return (
        f"{trials} of {trials} finished in {took:.0f} s; at most {most_files} open files and "
        f"{most_memory / 1e6:.0f} MB in a process"
    )
