"""The benchmark: makespans of whole sweeps, the harness beside ``peer.py``, as tables in Markdown.

    python benchmarks/sweeps.py                # every sweep in full; the peer alone takes a quarter of an hour
    python benchmarks/sweeps.py --quick        # the peer trains a part, and its time for the rest is computed
    python benchmarks/sweeps.py --only toy --repeats 3 --device cuda

A makespan is the wall time of one command in a process of its own, from start to exit.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from sweep.__main__ import CONF, configured
from sweep.adapters.fold import fold
from sweep.execution.job import Job, job_of
from sweep.tasks.registry import build

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = Path(os.environ.get("LORA_SWEEP_CACHE", ROOT / "outputs" / ".cache"))
SAMPLE_EVERY_S = 0.25
PROBE_STEPS = 20


@dataclass(frozen=True)
class Sweep:
    """A grid of trials: the product of ``factors`` and ``seeds`` seeds, each trained for ``steps`` steps."""

    title: str
    task: str
    factors: Mapping[str, Sequence[object]]
    seeds: int
    steps: int
    batch_size: int
    at_least: float
    aim: float

    @property
    def cells(self) -> int:
        """Combinations of levels, seed aside."""
        return math.prod(len(levels) for levels in self.factors.values())

    @property
    def trials(self) -> int:
        """How many trials the whole grid has."""
        return self.cells * self.seeds

    def overrides(self, seeds: int, **other: object) -> list[str]:
        """The command line of the grid with ``seeds`` seeds; the harness and the peer understand the same."""
        fixed = {
            "task": self.task,
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "training.eval_every": "null",
            "cache": CACHE,
        }
        factors = {key: ",".join(map(str, levels)) for key, levels in self.factors.items()}
        values = fixed | factors | {"seed": f"range({seeds})" if seeds > 1 else 0} | other
        return [f"{key}={value}" for key, value in values.items()]


RANKS = (1, 2, 4, 8)
SWEEPS = {
    "toy": Sweep(
        title="toy 64→10, batch 32",
        task="toy_regression",
        factors={"adapter.rank": RANKS, "adapter.init": ("kaiming", "gaussian"), "optimizer.lr": (3e-3, 1e-2)},
        seeds=16,
        steps=500,
        batch_size=32,
        at_least=20,
        aim=40,
    ),
    "mnist": Sweep(
        title="MNIST MLP, batch 10",
        task="mnist",
        factors={"adapter.rank": RANKS, "optimizer.lr": (3e-4, 1e-3)},
        seeds=8,
        steps=300,
        batch_size=10,
        at_least=4,
        aim=8,
    ),
    "transformer": Sweep(
        title="transformer, batch 16",
        task="transformer",
        factors={"adapter.rank": (2, 8), "adapter.targets": ("attention", "all_linear"), "optimizer.lr": (3e-3,)},
        seeds=4,
        steps=100,
        batch_size=16,
        at_least=1.5,
        aim=3,
    ),
}
ONE_STEP = Sweep(
    title="toy, 1 step",
    task="toy_regression",
    factors={"adapter.rank": RANKS},
    seeds=250,
    steps=1,
    batch_size=32,
    at_least=50,
    aim=20,
)
SIZES = (100, 500, 1000, 2000)


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and CPU seconds, and the most memory of all its processes together, in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass
class Side:
    """One contender's measurements of one sweep."""

    costs: list[Cost] = field(default_factory=list)
    finals: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    gpu_mb: float = 0.0

    @property
    def wall_s(self) -> float:
        """The median makespan."""
        return statistics.median(cost.wall_s for cost in self.costs)

    @property
    def cpu_s(self) -> float:
        """The median CPU time, which a busy machine blurs less."""
        return statistics.median(cost.cpu_s for cost in self.costs)


def measure(command: Sequence[str], folder: Path, **environment: str) -> Cost:
    """Run a command in ``folder`` to its end. Raises RuntimeError with the end of its output when it fails."""
    cpu_s: dict[int, float] = {}  # by process; sampled, because nobody waits for what a fork server starts
    began = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/sweep/_plugin", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        peak = 0.0
        while True:
            try:
                process.wait(SAMPLE_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, _sample(process.pid, cpu_s))
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{(folder / 'output.txt').read_text()[-3000:]}")
    return Cost(wall_s, sum(cpu_s.values()), peak)


def _sample(pid: int, cpu_s: dict[int, float]) -> float:
    """Note the CPU seconds of a process and its descendants, and return their memory in MB.

    Pages that several share count once, where the system can tell.
    """
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            times = process.cpu_times()
            cpu_s[process.pid] = times.user + times.system
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.Error:
        pass  # it has just ended
    return total / 1e6


def run_ours(sweep: Sweep, device: str, packs: Sequence[str], **other: object) -> tuple[Cost, Side]:
    """The harness with its packed launcher on the whole grid, or on that of ``other`` seeds."""
    seeds = int(str(other.pop("seeds", sweep.seeds)))
    overrides = sweep.overrides(seeds, name="bench", device=device, **other)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cost = measure([sys.executable, "-m", "sweep", "-m", "hydra/launcher=packed", *overrides, *packs], folder)
        records = [json.loads(path.read_bytes()) for path in folder.glob("outputs/bench/*/record.json")]
    assert len(records) == sweep.cells * seeds, f"{len(records)} records"
    assert all(record["status"] == "finished" for record in records)
    gpu_mb = max(record["perf"].get("peak_memory_mb", 0) for record in records) if device == "cuda" else 0.0
    return cost, Side(finals={_key(record["trial"]): record["result"] for record in records}, gpu_mb=gpu_mb)


def run_peer(sweep: Sweep, seeds: int, device: str, threads: int) -> tuple[Cost, Side]:
    """The peer on the grid with ``seeds`` seeds."""
    overrides = sweep.overrides(seeds, device=device, threads=threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cost = measure(_peer(overrides), folder, MKL_CBWR="AUTO")
        results = _peer_results(folder)
    assert len(results) == sweep.cells * seeds, f"{len(results)} results"
    return cost, Side(finals={_key(result["config"]): result["result"] for result in results})


def fastest_threads(sweep: Sweep, device: str) -> tuple[int, dict[int, float]]:
    """How many threads serve the peer best: 1 or one a core; and milliseconds of a step with each."""
    counts = sorted({1, os.cpu_count() or 1})
    first = {key: levels[-1] for key, levels in sweep.factors.items()}
    steps = {"training.steps": PROBE_STEPS, "threads": ",".join(map(str, counts))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(_peer(sweep.overrides(3, device=device, **first, **steps)), folder, MKL_CBWR="AUTO")
        results = _peer_results(folder)
    step_ms = {
        count: 1e3 * min(r["result"]["train_seconds"] for r in results if r["config"]["threads"] == count) / PROBE_STEPS
        for count in counts
    }
    return min(step_ms, key=lambda count: step_ms[count]), step_ms


def _peer(overrides: Sequence[str]) -> list[str]:
    return [sys.executable, str(HERE / "peer.py"), "-m", *overrides]


def _peer_results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in folder.glob("peer/*/result.json")]


def _key(trial: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells the trials of one sweep apart."""
    adapter = trial["adapter"]
    return adapter["rank"], adapter["init"], adapter["targets"], trial["optimizer"]["lr"], trial["seed"]


def difference(ours: Side, peer: Side) -> dict[str, float]:
    """The largest difference of each loss, relative to the peer's, over the trials that both have trained."""
    common = ours.finals.keys() & peer.finals.keys()
    assert common, "no common trial"
    return {
        name: max(abs(ours.finals[key][name] - peer.finals[key][name]) / peer.finals[key][name] for key in common)
        for name in ("train/loss", "eval/loss", "eval/source_loss")
    }


def training_flops(sweep: Sweep) -> float:
    """Floating-point operations of the training steps alone, as counted from the shapes of their matrix products.

    Of each cell one trial's forward and backward pass: the base's product forwards and back to the input where
    that is needed, the low-rank products, and attention. Evaluations and elementwise work are not counted.
    """
    return sum(_step_flops(job) * sweep.seeds * sweep.steps for job in _cells(sweep))


def _cells(sweep: Sweep) -> Iterator[Job]:
    lines: list[list[str]] = [sweep.overrides(1)]
    for key, levels in sweep.factors.items():
        lines = [[*line, f"{key}={level}"] for line in lines for level in levels]
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        for line in lines:
            last = dict(override.split("=", 1) for override in line)
            yield job_of(configured(compose("config", [f"{key}={value}" for key, value in last.items()])))


def _step_flops(job: Job) -> int:
    task = build(job.trial.task, job.cache_folder)
    folded = fold(task.new_model(), [job.trial.adapter], [job.resolved.targets], [0])
    inputs, targets = next(task.target.batches(torch.Generator(), job.trial.training.batch_size))
    with FlopCounterMode(display=False) as counter:
        task.loss(folded.model(inputs), targets).mean().backward()
    return counter.get_total_flops()


def matmul_rate(device: str) -> float:
    """FLOP/s of a float32 product of two square matrices: on one thread, or on the GPU."""
    size = 8192 if device == "cuda" else 1024
    torch.set_num_threads(1)
    left, right = torch.randn(2, size, size, device=device)
    durations = []
    for _ in range(20):
        began = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - began)
    return 2 * size**3 / min(durations)


def compare(sweep: Sweep, options: argparse.Namespace, rate: float) -> str:
    """Measure one sweep on both sides and return its line of the table."""
    ours, peer, part = Side(), Side(), Side()
    threads, step_ms = fastest_threads(sweep, options.device) if not options.no_peer else (1, {})
    for repeat in range(options.repeats):
        _say(f"{sweep.title}: repeat {repeat + 1}, ours")
        cost, side = run_ours(sweep, options.device, options.launcher)
        ours = Side([*ours.costs, cost], side.finals, side.gpu_mb)
        _say(f"  {cost}")
        if options.no_peer:
            continue
        sizes = (1, 2) if options.quick else (sweep.seeds,)
        for seeds, kept in zip(sizes, (part, peer) if options.quick else (peer,), strict=True):
            _say(f"{sweep.title}: repeat {repeat + 1}, peer, {sweep.cells * seeds} trials, {threads} threads")
            cost, side = run_peer(sweep, seeds, options.device, threads)
            kept.costs.append(cost)
            kept.finals |= side.finals
            _say(f"  {cost}")
    flops = training_flops(sweep)
    cores = 1 if options.device == "cuda" else os.cpu_count() or 1
    share = flops / ours.wall_s / (rate * cores)
    memory = ours.gpu_mb or max(cost.peak_mb for cost in ours.costs)
    head = (
        f"| {sweep.title}: {sweep.trials} trials × {sweep.steps} | {ours.wall_s:.1f} | {ours.cpu_s:.1f} | {memory:.0f} "
    )
    if options.no_peer:
        return f"{head}| – | – | – | – | {sweep.at_least:g}× / {sweep.aim:g}× | {share:.1%} | – |"
    peer_s, peer_cpu_s, sign = peer.wall_s, peer.cpu_s, ""
    if options.quick:
        remaining = sweep.seeds - 1
        peer_s, sign = part.wall_s + (peer.wall_s - part.wall_s) * remaining, "≈ "
        peer_cpu_s = part.cpu_s + (peer.cpu_s - part.cpu_s) * remaining
    worst = difference(ours, peer)
    _say(f"  peer's step by threads, ms: {step_ms}; largest relative difference of a trial: {worst}")
    ratio = f"{sign}{peer_s / ours.wall_s:.1f}×"
    target = f"{sweep.at_least:g}× / {sweep.aim:g}×"
    cpu_ratio = f"{sign}{peer_cpu_s / ours.cpu_s:.1f}×"
    return f"{head}| {sign}{peer_s:.0f} | {sign}{peer_cpu_s:.0f} | {ratio} | {cpu_ratio} | {target} | {share:.1%} | {max(worst.values()):.0e} |"


def compared(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Print the table of makespans."""
    rate = matmul_rate(options.device)
    what = "the GPU" if options.device == "cuda" else "one thread"
    print(f"\nMatrix product in float32 on {what}: {rate / 1e9:.0f} GFLOP/s.\n")
    memory = "GPU MB" if options.device == "cuda" else "MB"
    print(f"| sweep | ours s | CPU s | {memory} | peer s | peer CPU s | ratio | CPU ratio | at least / aim | of the machine's matmul rate | largest difference of a loss |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        print(compare(SWEEPS[name], options, rate), flush=True)


def scaled(options: argparse.Namespace) -> None:
    """Print time and memory by the number of trials, and what one more trial costs."""
    print("\n| toy trials × 1 step | ours s | CPU s | MB |\n|---|---|---|---|")
    cpu_s = {}
    for trials in SIZES:
        seeds = trials // ONE_STEP.cells
        costs = [run_ours(ONE_STEP, "cpu", options.launcher, seeds=seeds)[0] for _ in range(options.repeats)]
        wall, cpu, peak = (
            statistics.median(values) for values in zip(*((c.wall_s, c.cpu_s, c.peak_mb) for c in costs), strict=True)
        )
        cpu_s[trials] = cpu
        print(f"| {trials} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |", flush=True)
    each = 1e3 * (cpu_s[1000] - cpu_s[100]) / 900
    line = f"\nOne more trial: {each:.0f} ms CPU (at most {ONE_STEP.at_least:g}, aim {ONE_STEP.aim:g})"
    if not options.no_peer:
        small, large = (run_peer(ONE_STEP, seeds, "cpu", 1)[0] for seeds in (5, 15))
        line += (
            f"; of the peer {1e3 * (large.cpu_s - small.cpu_s) / (10 * ONE_STEP.cells):.0f} ms, from 20 and 60 trials"
        )
    print(line + ".", flush=True)


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    names = [line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    memory = psutil.virtual_memory().total / 1e9
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB{gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*SWEEPS, "scale"]), help="a comma-separated part of this list")
    parser.add_argument("--quick", action="store_true", help="train 1 and 2 of the peer's seeds, compute the rest (≈)")
    parser.add_argument("--repeats", type=int, default=1, help="how often; the table has medians")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--no-peer", action="store_true", help="measure the harness alone")
    parser.add_argument(
        "--launcher", nargs="*", default=[], help="further overrides of ours, hydra.launcher.max_pack=128"
    )
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - {*SWEEPS, "scale"}:
        parser.error(f"--only {','.join(unknown)}: must be some of {', '.join([*SWEEPS, 'scale'])}")
    print(f"{time.strftime('%Y-%m-%d')}: {machine()}")
    if any(name in SWEEPS for name in names):
        compared(options, [name for name in names if name in SWEEPS])
    if "scale" in names:
        scaled(options)


if __name__ == "__main__":
    main()
