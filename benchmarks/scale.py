"""What a sweep of 100,000 trials costs besides its training, measured on fewer and multiplied.

    python benchmarks/scale.py                    2,000 simulated trials, 100,000 by proportion
    python benchmarks/scale.py --trials 100000    all of them, if you have the time and a million inodes

Nothing is trained: the trials' files are written by the harness's own writers with made-up numbers. Everything that
is timed is the harness's own code. Times are processor time; that of writing is wall time, since it waits for the disk.
"""

import argparse
import logging
import math
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import analysis  # noqa: E402
from sweep.engines.parcel import parcel_of  # noqa: E402
from sweep.engines.slurm import ARRAY_SIZE, LAST_POLL_S  # noqa: E402
from sweep.launch.packing import into_packs  # noqa: E402
from sweep.resolve import ResolvedTrial, resolve  # noqa: E402
from sweep.store.skip import decide  # noqa: E402
from sweep.store.store import Store  # noqa: E402
from sweep.trackers.local import LocalTracker  # noqa: E402
from tests.support.commands import config  # noqa: E402

TARGET = 100_000
MAX_PACK = 256
ROWS = 12
WANDB_RUNS_OF_A_PROJECT, WANDB_NEW_RUNS_A_SECOND = 10_000, 80
"""What docs.wandb.ai advises for a project, and the default limit of a server (429 above it)."""


@dataclass
class Cost:
    what: str
    each: float
    unit: str

    def row(self) -> str:
        shown = {"s": _duration, "B": _size, "": lambda n: f"{n:,.0f}"}[self.unit]
        one = f"{1e3 * self.each:.2f} ms" if self.unit == "s" else shown(self.each)
        return f"| {self.what} | {one} | {shown(TARGET * self.each)} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count > 1e9 else f"{count / 1e6:.0f} MB" if count > 1e6 else f"{count:,.0f} B"


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    began = clock()
    work()
    return clock() - began


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def simulated(count: int) -> list[ResolvedTrial]:
    """Jobs that differ in rank, learning rate and seed."""
    plain = config("task=toy_regression", "tracker=none", "training.steps=100")
    made = []
    for number in range(count):
        adapter = plain.adapter.model_copy(update={"rank": 1 << number % 4})
        optimizer = plain.optimizer.model_copy(update={"lr": 1e-3 * (1 + number // 4 % 25)})
        made.append(plain.model_copy(update={"adapter": adapter, "optimizer": optimizer, "seed": number // 100}))
    return [resolve(one) for one in made]


def leave(trial: ResolvedTrial, store: Store) -> None:
    """Write what a finished trial leaves."""
    tracker = LocalTracker(store.trial_folder(trial))
    tracker.note("trial in a pack")
    for step in range(ROWS):
        tracker.log(step, {"train/loss": 1 / (1 + step), "train/lr": 1e-3, "eval/loss": 2 / (1 + step)})
    result = {"train/loss": 0.1, "eval/loss": 0.2, "eval/source_loss": 0.3}
    perf = {"step_ms": 1.0, "samples_per_second": 1e4, "train_seconds": 1.0, "pack_size": MAX_PACK}
    params = {"trainable": 1, "total": 2, "trainable_ratio": 0.5}
    here = {"torch": "2", "python": "3.11", "base": "0" * 16}
    tracker.finish(store.record_of(trial, here, "finished", params=params, result=result, perf=perf))


def asking(count: int) -> float:
    """Seconds in which the command line composes, checks and plans ``count`` trials, start included."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "sweep" / "_plugin")))
    line = [sys.executable, "-m", "sweep", "--dry-run", "task=toy_regression", "training.steps=100"]
    line += ["adapter.rank=1,2,4,8", f"seed=range({count // 4})"]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": path}
        return seconds(
            lambda: subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True), _children
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    count = parser.parse_args().trials
    logging.disable(logging.WARNING)
    few, many = count // 5, count
    costs = [Cost("compose, check and plan it", (asking(many) - asking(few)) / (many - few), "s")]
    trials = simulated(count)
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "sweep", None)
        costs.append(
            Cost(
                "write its record, history and log",
                seconds(lambda: [leave(trial, store) for trial in trials], time.perf_counter) / count,
                "s",
            )
        )
        files = [path for path in store.folder.rglob("*") if path.is_file()]
        costs.append(Cost("files and folders (Hydra's own files add 4)", (len(files) + count) / count, ""))
        blocks = sum(path.stat().st_blocks * 512 for path in (*files, *store.folder.iterdir()))
        costs.append(Cost("disk (Hydra's own files add as much)", blocks / count, "B"))
        costs.append(
            Cost(
                "find it finished at the next launch",
                seconds(lambda: [decide(trial, store) for trial in trials]) / count,
                "s",
            )
        )
        costs.append(Cost("read it for a report", seconds(lambda: analysis.load(store.folder)) / count, "s"))
        packs = into_packs(trials[: 4 * MAX_PACK], MAX_PACK, workers=1)
        parcels = [pickle.dumps(parcel_of(pack.trials, store, None)) for pack in packs]
        costs.append(Cost("send it to a node", math.fsum(map(len, parcels)) / sum(len(p.trials) for p in packs), "B"))
    print(f"| a trial, besides its training | of {count:,}: each | {TARGET:,} |\n|:---|---:|---:|")
    print("\n".join(cost.row() for cost in costs))
    packs_in_all = math.ceil(TARGET / MAX_PACK)
    print(
        f"\nIn packs of {MAX_PACK}: {packs_in_all} packs; on SLURM {math.ceil(packs_in_all / ARRAY_SIZE)} array of at most "
        f"{ARRAY_SIZE:,} jobs, and {3600 / LAST_POLL_S:.0f} calls of squeue an hour. Each alone: {TARGET:,} jobs, "
        f"{math.ceil(TARGET / ARRAY_SIZE)} arrays.\nOn W&B: {math.ceil(TARGET / WANDB_RUNS_OF_A_PROJECT)} projects of "
        f"{WANDB_RUNS_OF_A_PROJECT:,} runs; at {WANDB_NEW_RUNS_A_SECOND} new runs a second, {_duration(TARGET / WANDB_NEW_RUNS_A_SECOND)} "
        "just to create them."
    )


if __name__ == "__main__":
    main()
