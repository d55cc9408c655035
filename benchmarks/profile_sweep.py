"""Where the time of one launch goes, by sampling its call stacks: a table of phases, then the deepest functions.

    pip install py-spy
    python benchmarks/profile_sweep.py toy               # a sweep of sweeps.py, with all its seeds
    python benchmarks/profile_sweep.py mnist --seeds 2 tracker=none

Sampling does not slow the program, and follows its worker processes. A thread that waits is not counted; W&B's
own process is not Python and is not seen (the CPU column of ``sweeps.py`` has it).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from grids import ONE_STEP, ROOT, SWEEPS

SAMPLES_PER_S = 100
PHASES = {
    "import of modules": r"_find_and_load \(",
    "Hydra: sweeper composes every job to check it": r"validate_batch_is_legal",
    "Hydra: launcher composes every job": r"compose \(.*lora_sweep/compose",
    "Hydra: run_job": r"run_job \(hydra",
    "  of which our job": r"__call__ \(sweep/cli/app",
    "prepare": r"prepare \(sweep/cli/app",
    "  configured (resolve, validate)": r"_resolve \(sweep/cli/app",
    "  resolve (identity, targets)": r"resolve \(",
    "  load_base": r"load_base \(",
    "  fold (init)": r"fold \(sweep/adapters",
    "  train, evaluations included": r"train \(sweep/training/loop",
    "    batches": r"_batches.*\(sweep/training/loop",
    "    LoRA forward": r"forward \(sweep/adapters/lora",
    "    backward, all of it": r"_engine_run_backward",
    "    LoRA backward": r"backward \(sweep/adapters/lora",
    "    optimizer": r"step \(sweep/training/optimizer",
    "    evaluate": r"evaluate \(sweep/training",
    "  closing": r"closing \(",
    "  W&B: open": r"open \(sweep/trackers/wandb",
    "  rows (local and W&B)": r"rows \(sweep/packs/rows",
    "    W&B: log": r"log \(sweep/trackers/wandb",
    "  history: flush": r"flush \(sweep/trackers/local",
    "  finish (records and W&B)": r"finish \(sweep/packs/rows",
    "    W&B: finish": r"finish \(sweep/trackers/wandb|finish_all",
    "    record written": r"finish \(sweep/trackers/local",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=[*SWEEPS, "one_step"])
    parser.add_argument("--seeds", type=int, help="default: all of the sweep's")
    parser.add_argument("--top", type=int, default=20, help="how many functions to list")
    parser.add_argument("overrides", nargs="*", help="further ones, such as tracker=none")
    options = parser.parse_intermixed_args()
    sweep = {**SWEEPS, "one_step": ONE_STEP}[options.sweep]
    seeds = options.seeds or sweep.seeds
    overrides = [*sweep.overrides(seeds, name="profiled"), *options.overrides]
    with tempfile.TemporaryDirectory() as name:
        stacks = Path(name) / "stacks.txt"
        recorder = ["py-spy", "record", "-r", str(SAMPLES_PER_S), "-f", "raw", "-o", str(stacks), "--subprocesses"]
        launch = [sys.executable, "-m", "sweep", "-m", "hydra/launcher=packed", *overrides]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/sweep/_plugin"}
        subprocess.run([*recorder, "--", *launch], cwd=name, env=environment, check=True, stdout=subprocess.DEVNULL)
        samples = [line.rpartition(" ") for line in stacks.read_text().splitlines()]
    counts = Counter({stack: int(count) for stack, _, count in samples})
    print(f"\n{sweep.title}: {sweep.cells * seeds} trials × {sweep.steps}\n")
    print(_phases(counts, sweep.cells * seeds))
    print(f"\n{_functions(counts, options.top)}")


def _phases(counts: Counter[str], trials: int) -> str:
    lines = ["| phase | s | ms a trial | share |", "|---|---|---|---|"]
    whole = counts.total()
    for phase, pattern in {**PHASES, "whole": ""}.items():
        inside = sum(count for stack, count in counts.items() if re.search(pattern, stack))
        seconds = inside / SAMPLES_PER_S
        lines.append(f"| {phase} | {seconds:.1f} | {1e3 * seconds / trials:.1f} | {inside / whole:.0%} |")
    return "\n".join(lines)


def _functions(counts: Counter[str], top: int) -> str:
    deepest: Counter[str] = Counter()
    for stack, count in counts.items():
        deepest[stack.rpartition(";")[2]] += count
    lines = ["| line | share |", "|---|---|"]
    lines += [f"| {frame} | {count / counts.total():.1%} |" for frame, count in deepest.most_common(top)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
