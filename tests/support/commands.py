"""Ways to use the product as its user does: its command lines, its configurations, and what a sweep leaves."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from analysis.sources.wandb_files import WandbRun, read_run, run_files
from sweep import record
from sweep.cli.app import Application, plain
from sweep.cli.run import CONF
from sweep.config import Config, parse
from sweep.record import Record
from sweep.resolve import ResolvedTrial, resolve
from tests.support.warm import Request, forked

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "sweep" / "_plugin")))
"""Where the package and Hydra's launcher are in this checkout."""
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell, and what they start, ignore it
TOY = ("task=toy_regression", "training.steps=20", "training.eval_every=10", "tracker=none")


def command(
    module: str, *arguments: str, cwd: Path, fresh: bool = False, umask: int = -1, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module`` in ``cwd`` and wait for its end, in a process that is spared its imports.

    A ``fresh`` one imports everything itself; it also inherits what the test has changed in its own process, such as
    its limits. A negative ``umask`` is that of the tests.
    """
    everything = _environment(environment)
    cwd.mkdir(exist_ok=True)
    if not fresh:
        return forked(Request(module, arguments, str(cwd), everything, umask), PATH)
    line = _line(module, arguments)
    return subprocess.run(
        line, cwd=cwd, env=everything, umask=umask, capture_output=True, text=True, timeout=300, check=False
    )


def start(module: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -m module`` in ``cwd``."""
    line, everything = _line(module, arguments), _environment(environment)
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(line, cwd=cwd, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _line(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HYDRA_"))}
    return kept | {"PYTHONPATH": PATH, "COLUMNS": "200", "OMP_NUM_THREADS": "1"} | dict(changes)


def sweep(*arguments: str, cwd: Path, fresh: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sweep`` and expect it to succeed."""
    done = command("sweep", *arguments, cwd=cwd, fresh=fresh, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def hydra_loader() -> Iterator[ConfigLoaderImpl]:
    """Hydra's own loader on ``conf/``, with the resolvers of the command line."""
    OmegaConf.register_new_resolver("trial_folder", Application().trial_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", Application().sweep_folder, replace=True)
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3", job_name="sweep"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        yield loader


@cache
def composed(choices: tuple[str, ...]) -> bytes:
    """The pickle of what Hydra makes of choices of groups, such as ``task=mnist``; composed once."""
    with hydra_loader():
        return pickle.dumps(compose("config", list(choices)))


def config(*overrides: str) -> Config:
    """The validated configuration of ``overrides``: Hydra composes the choices of groups, plain values are put in."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [one for one in parsed if (CONF / str(one.key_or_group)).is_dir() and isinstance(one.value(), str)]
    whole: DictConfig = pickle.loads(composed(tuple(str(one.input_line) for one in choices)))
    ConfigLoaderImpl._apply_overrides_to_config([one for one in parsed if one not in choices], whole)
    return parse(plain(whole))


def resolved(*each: str, common: tuple[str, ...] = TOY, cache: Path) -> list[ResolvedTrial]:
    """A trial for each string of overrides, separated by spaces, on top of ``common``."""
    return [resolve(config(*common, f"cache={cache}", *overrides.split())) for overrides in each]


def records(folder: Path) -> dict[str, Record]:
    """The records of a sweep by their folders' names."""
    found = {path.parent.name: record.read(path.parent) for path in sorted(folder.glob("*/record.json"))}
    return {name: one for name, one in found.items() if one is not None}


def untimed(one: Record) -> dict[str, Any]:
    """Everything in a record, as its file holds it, but how fast it was and where an error was raised."""
    values = record.finite(asdict(one))
    del values["perf"]
    if values["error"]:
        del values["error"]["traceback"]
    return values


def wandb_runs(folder: Path) -> list[WandbRun]:
    """The runs in the ``.wandb`` files below ``folder``, in the order of the files' names."""
    return [read_run(path) for path in run_files(folder)]


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a trial's history."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def tree(folder: Path) -> set[str]:
    """Every file and folder below ``folder``, as relative paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
