"""Run one side of a benchmark in a process of its own, and take its time, memory and results."""

import json
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
from grids import ROOT, Sweep
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from sweep.adapters.fold import fold
from sweep.cli.app import plain
from sweep.cli.run import CONF
from sweep.config import parse
from sweep.resolve import ResolvedTrial, resolve

HERE = Path(__file__).parent
SAMPLE_EVERY_S = 0.25
PROBE_STEPS = 20


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


def _cells(sweep: Sweep) -> Iterator[ResolvedTrial]:
    lines: list[list[str]] = [sweep.overrides(1)]
    for key, levels in sweep.factors.items():
        lines = [[*line, f"{key}={level}"] for line in lines for level in levels]
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        for line in lines:
            last = dict(override.split("=", 1) for override in line)
            yield resolve(parse(plain(compose("config", [f"{key}={value}" for key, value in last.items()]))))


def _step_flops(job: ResolvedTrial) -> int:
    task = job.task.build(job.cache_folder)
    model = task.new_model(torch.Generator())
    folded = fold(model, [job.adapter], [job.targets], [0], job.padded_rank)
    inputs, targets = next(task.target.batches(torch.Generator(), job.training.batch_size))
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
