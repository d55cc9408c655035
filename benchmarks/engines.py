"""The same sweep of 200 trials on each engine: makespan, overhead of a pack, and whether the records are equal.

    python benchmarks/engines.py            local, ray and slurm on two workers of this machine

Ray and SLURM are real and run on loopback, started before the clock. The overhead of a pack is the time of both
workers that was not spent in updates, shared among the packs: starting processes, evaluating, writing, moving.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from sweep import record  # noqa: E402
from tests.support import loopback_ray, loopback_slurm  # noqa: E402

WORKERS = 2
SWEEP = (
    "-m",
    "hydra/launcher=packed",
    "task=toy_regression",
    "name=engines",
    "tracker=none",
    "training.steps=500",
    "adapter.rank=1,2,4,8",
    "optimizer.lr=1e-3,3e-3,1e-2,3e-2,1e-1",
    "seed=0,1,2,3,4,5,6,7,8,9",
    f"hydra.launcher.workers={WORKERS}",
    "hydra.launcher.max_pack=25",
)


@contextmanager
def engine(name: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The words that choose an engine, and its environment, while it runs."""
    match name:
        case "local":
            yield [], {}
        case "ray":
            with loopback_ray.ray_cluster(WORKERS, {}) as cluster:
                words = ["hydra.launcher.engine=ray", f"hydra.launcher.address={cluster.address}"]
                yield words, loopback_ray.ENVIRONMENT
        case "slurm":
            with loopback_slurm.slurm() as environment:
                yield ["hydra.launcher.engine=slurm"], environment


def measure(name: str, folder: Path) -> tuple[float, dict[str, record.Record]]:
    """Seconds from start to exit of the command, and its records."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "sweep" / "_plugin")))
    with engine(name) as (words, environment):
        began = time.perf_counter()
        line = [sys.executable, "-m", "sweep", *SWEEP, *words]
        variables = os.environ | {"PYTHONPATH": path} | environment
        subprocess.run(line, cwd=folder, env=variables, check=True, capture_output=True)
        makespan = time.perf_counter() - began
    found = {path.name: record.read(path) for path in sorted((folder / "outputs" / "engines").glob("r*-*"))}
    return makespan, {trial: one for trial, one in found.items() if one is not None}


def science(one: record.Record) -> dict[str, object]:
    """A record without its timings."""
    return {key: value for key, value in asdict(one).items() if key != "perf"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=["local", "ray", "slurm"])
    expected: dict[str, dict[str, object]] | None = None
    print("| engine | makespan | packs | overhead of a pack | records |\n|:---|---:|---:|---:|:---|")
    for name in parser.parse_args().engines:
        with tempfile.TemporaryDirectory() as folder:
            makespan, found = measure(name, Path(folder))
        packs = round(math.fsum(1 / one.perf["pack_size"] for one in found.values()))
        updates = math.fsum(one.perf["train_seconds"] / one.perf["pack_size"] for one in found.values())
        overhead = (makespan * WORKERS - updates) / packs
        own = {trial: science(one) for trial, one in found.items()}
        expected = expected or own
        said = f"{len(own)}, equal" if own == expected else f"{len(own)}, DIFFERENT"
        print(f"| {name} | {makespan:.1f} s | {packs} | {overhead:.1f} s | {said} |", flush=True)


if __name__ == "__main__":
    main()
