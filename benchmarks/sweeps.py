"""The benchmark: makespans of whole sweeps, the harness beside ``peer.py``, as tables in Markdown.

    python benchmarks/sweeps.py                # every sweep in full; the peer alone takes a quarter of an hour
    python benchmarks/sweeps.py --quick        # the peer trains a part, and its time for the rest is computed
    python benchmarks/sweeps.py --only toy --repeats 3 --device cuda

A makespan is the wall time of one command in a process of its own, from start to exit.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence

from grids import ONE_STEP, SWEEPS, Sweep
from measuring import Side, difference, fastest_threads, machine, matmul_rate, run_ours, run_peer, training_flops

SIZES = (100, 500, 1000, 2000)


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
    print(
        f"| sweep | ours s | CPU s | {memory} | peer s | peer CPU s | ratio | CPU ratio | at "
        f"least / aim | of the machine's matmul rate | largest difference of a loss |"
    )
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
