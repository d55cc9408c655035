"""``python -m sweep status outputs/NAME``: what is finished, what failed and why, what is missing."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from sweep import record
from sweep.state import Found, State, find
from sweep.text import counted, printable, say

STATES = get_args(State)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the state of a sweep: 0 when every trial is finished or pruned, 1 when not, 2 when there is no such sweep."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep status",
        description="Show what is finished, what failed and why, and what is missing. Exit code 0: all are finished.",
    )
    parser.add_argument("folder", type=Path, help="outputs/NAME")
    folder = parser.parse_args(arguments).folder
    trials = find(folder)
    if not trials:
        say(f"lora-sweep: {folder} holds no trial", sys.stderr)
        return 2
    say(describe(folder, trials))
    return 0 if all(trial.phase == "done" for trial in trials) else 1


def describe(folder: Path, trials: Sequence[Found]) -> str:
    """The state of a sweep in words: numbers first, then every trial that is not finished."""
    by_state = {state: [trial for trial in trials if trial.state == state] for state in STATES}
    counts = ", ".join(f"{len(some)} {state}" for state, some in by_state.items() if some)
    lines = [f"{folder}: {counted(len(trials), 'trial')}: {counts}"]
    for state in STATES:
        for trial in (one for one in by_state[state] if one.phase != "done"):
            detail = " ".join(trial.detail.split())[:200]
            lines.append(f"  {state:11}  {printable(trial.folder.name)}  {detail}".rstrip())
    lines += [
        f"environment differs in {line}" for line in record.mixtures(trial.record for trial in trials if trial.record)
    ]
    if any(trial.phase != "done" for trial in trials):
        lines.append("the sweep's command, run again, trains what is not finished")
    return "\n".join(lines)
