"""Sweeps that are killed at random moments on each launcher, and started again until they are finished."""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

import analysis
from analysis.errors import BadRequestError
from tests.support import loopback_ray, loopback_slurm
from tests.support.commands import PATH
from tests.support.sweeps import Sweep, launched, report, same, uninterrupted, wait_for

PATIENCE_S = 300.0
OUTLIVES_S = 20.0


class NotHereError(RuntimeError):
    """What a launcher runs on is not installed here."""


@dataclass(frozen=True)
class Stage:
    """What a launcher runs on: what a command line and its environment need for it, and what else can be killed.

    ``workers`` finds processes that train and do not belong to the command's own group. ``come_to_rest``
    returns when what a killed command has left running is done.
    """

    arguments: Sweep = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: Callable[[], list[psutil.Process]] | None = None
    come_to_rest: Callable[[], None] = lambda: None


@contextmanager
def this_machine() -> Iterator[Stage]:
    yield Stage()


@contextmanager
def ray() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as nodes:
        environment = {"PYTHONPATH": PATH, "XDG_CACHE_HOME": f"{nodes}/cache", "TMPDIR": nodes}
        with loopback_ray.ray_cluster(2, environment) as cluster:
            yield Stage((f"hydra.launcher.address={cluster.address}",), loopback_ray.ENVIRONMENT, _ray_workers)


@contextmanager
def slurm() -> Iterator[Stage]:
    if reason := loopback_slurm.missing():
        raise NotHereError(reason)
    with loopback_slurm.slurm() as environment:

        def queue_is_empty() -> bool:
            line = ["squeue", "--noheader"]
            answer = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=True)
            return not answer.stdout.strip()

        def workers() -> list[psutil.Process]:
            trainers = [
                one
                for one in psutil.process_iter(["cmdline"])
                if "submitit.core._submit" in (one.info["cmdline"] or ())
            ]
            return [one for one in trainers if environment.items() <= one.environ().items()]

        yield Stage((), environment, workers, lambda: wait_for(queue_is_empty, PATIENCE_S))


def _ray_workers() -> list[psutil.Process]:
    """Those that train a pack, on the nodes that this process has started."""
    return [one for one in psutil.Process().children(recursive=True) if one.name().startswith("ray::lora-sweep")]


@dataclass(frozen=True)
class Launcher:
    """``kills`` is how often its sweeps are killed at most; ``needs`` names the modules that it does not work without.

    A launch is killed before ``latest`` of the time is over that an uninterrupted sweep takes. ``other_trials`` says
    that the arguments change what is trained.
    """

    arguments: Sweep
    kills: int = 50
    needs: Sequence[str] = ()
    stage: Callable[[], AbstractContextManager[Stage]] = this_machine
    latest: float = 0.6
    other_trials: bool = False


PACKED = ("hydra/launcher=packed", "hydra.launcher.max_pack=8")
TWO = (*PACKED, "hydra.launcher.workers=2")
LAUNCHERS = {
    "packed, one process": Launcher((*PACKED, "hydra.launcher.workers=1")),
    "packed, two processes": Launcher(TWO),
    "packed, pruning": Launcher(
        (*TWO, "pruning=2", "training.eval_every=250", "optimizer.lr=1e-2,1e-3"), 10, other_trials=True
    ),
    "packed, Ray": Launcher((*TWO, "hydra.launcher.engine=ray"), 10, ["ray"], ray),
    "packed, SLURM": Launcher((*TWO, "hydra.launcher.engine=slurm"), 10, ["submitit"], slurm),
    "basic": Launcher(("hydra/launcher=basic",), latest=0.25),
    "joblib": Launcher(
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), 10, ["hydra_plugins.hydra_joblib_launcher"], latest=0.25
    ),
}


@dataclass
class Survived:
    """What was killed how often, how many sweeps were finished and compared, and how many trials and rows each of them has."""

    killed: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    trials: int = 0
    rows: int = 0


def kill_at_random(
    launcher: Launcher, sweep: Sweep, kills: int, place: Path, reference: Path | None = None
) -> Survived:
    """Kill sweeps of one command line ``kills`` times at random moments, and start them again until they are finished.

    What is killed is the command alone, or its process group, or one of the workers that are not in that.
    Each sweep that is finished is compared with one that nobody killed, and that one with ``reference``, which
    another launcher has left. Raises NotHereError.
    """
    if absent := [module for module in launcher.needs if importlib.util.find_spec(module) is None]:
        raise NotHereError(f"not installed: {', '.join(absent)}")
    chance, survived = random.Random(0), Survived()
    place.mkdir()
    with launcher.stage() as stage:
        arguments = (*sweep, *launcher.arguments, *stage.arguments)
        (place / "whole").mkdir()
        began = monotonic()
        whole = uninterrupted(place / "whole", *arguments, **stage.environment)
        whole_s = monotonic() - began
        survived.trials, survived.rows = len(_records(whole)), same(whole, reference or whole)
        expected = report(whole)
        moments = [chance.uniform(0.05, launcher.latest) * whole_s for _ in range(kills)]
        while moments:
            cwd = place / str(survived.sweeps)
            cwd.mkdir()
            survived.killed += _finish_under_fire(cwd, arguments, stage, moments, chance)
            stage.come_to_rest()
            same(cwd / "outputs" / "s", whole)
            assert report(cwd / "outputs" / "s") == expected
            shutil.rmtree(cwd)
            survived.sweeps += 1
    return survived


def _finish_under_fire(
    cwd: Path, arguments: Sweep, stage: Stage, moments: list[float], chance: random.Random
) -> Counter[str]:
    """Launch a sweep again and again until it is finished; something is killed at each of ``moments``, which are used up."""
    killed: Counter[str] = Counter()
    finished: dict[Path, tuple[int, bytes]] = {}
    returned = -signal.SIGKILL
    while returned:
        with launched(cwd, *arguments, **stage.environment) as process:
            while moments and not _ends_within(moments[-1], process):
                if victim := _kill_one(process, stage, chance):
                    killed[victim] += 1
                    moments.pop()
            returned, said = process.wait(), _last_words(process)
        assert returned in (0, -signal.SIGKILL), said
        finished = _still_finished(cwd / "outputs" / "s", finished)
        print(f"  {len(finished)} trials finished, {len(moments)} kills to go", file=sys.stderr)
    return killed


def _ends_within(seconds: float, process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_words(process: subprocess.Popen[str]) -> str:
    """What a command that has ended has said; joblib's workers would outlive it and keep its output open."""
    try:
        return process.communicate(timeout=OUTLIVES_S)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[1]


def _kill_one(process: subprocess.Popen[str], stage: Stage, chance: random.Random) -> str:
    """Kill something of a running sweep and say what; an empty string where there was nothing to kill."""
    victim = chance.choice(["the command", "its process group", *(["a worker"] if stage.workers else [])])
    if victim == "a worker" and stage.workers:
        if not (workers := stage.workers()):
            return ""
        chance.choice(workers).kill()
    elif victim == "the command":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    return victim


def _still_finished(study: Path, before: Mapping[Path, tuple[int, bytes]]) -> dict[Path, tuple[int, bytes]]:
    """The records of a broken sweep; checks that those of ``before`` are untouched, and that the analysis sees no other rows."""
    now = _records(study)
    assert before.items() <= now.items(), "a finished trial was lost or written again"
    try:
        seen = analysis.load(study)
    except BadRequestError:
        assert not now
        return now
    assert len(now) <= len(seen.trials) <= len(_records(study))  # jobs of SLURM go on without the command
    assert seen.trials["eval/loss"].notna().all()
    assert not seen.problems
    return now


def _records(study: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in study.glob("*/record.json")}
