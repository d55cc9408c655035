"""``make torture``: kill sweeps at random moments, break what they stand on, and print what was observed.

Every check is an assertion, and a row says what was observed only where all of them hold. A shorter form runs in the
tests.
"""

import argparse
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from tests.support.faults import FAULTS, happens
from tests.support.fuzz import try_command_lines, try_yaml_files
from tests.support.kills import LAUNCHERS, NotHereError, kill_at_random
from tests.support.many_trials import FILES, many_trials
from tests.support.sweeps import grid, uninterrupted

SWEEP = grid(64, 2000)
Rows = dict[str, Callable[[], str]]


def main() -> None:
    """Print the table as Markdown; exit code 1 where something was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="print these rows of the table only")
    parser.add_argument("--kills", type=int, default=50, help="for each launcher at most (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=2000, help="of the largest sweep (default: %(default)s)")
    parser.add_argument(
        "--inputs", type=int, default=1000, help="random command lines, and files (default: %(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = killed(Path(folder), options.kills) | broken(Path(folder), options.trials, options.inputs)
        if unknown := set(options.rows) - rows.keys():
            parser.error(f"no such row: {', '.join(unknown)}; the rows are: {', '.join(rows)}")
        print(
            f"Printed by `make torture` ({platform.system()}, {os.cpu_count()} cores, torch "
            f"{torch.__version__}). Every line was checked.\n"
        )
        fine = True
        print("| what | observed |\n|:---|:---|")
        for name in options.rows or rows:
            print(name, file=sys.stderr)
            try:
                observed = rows[name]()
            except Exception:
                traceback.print_exc()
                observed, fine = "**not what is promised**", False
            print(f"| {name} | {observed} |", flush=True)
    sys.exit(not fine)


def killed(place: Path, most: int) -> Rows:
    """How each launcher survives being killed."""

    @cache
    def reference() -> Path:
        (place / "reference").mkdir()
        return uninterrupted(place / "reference", *SWEEP)

    def row(name: str) -> str:
        launcher = LAUNCHERS[name]
        expected = None if launcher.other_trials else reference()
        try:
            survived = kill_at_random(launcher, SWEEP, min(most, launcher.kills), place / name, expected)
        except NotHereError as error:
            return f"not tried: {error}"
        times = ", ".join(f"{victim} {number}×" for victim, number in sorted(survived.killed.items()))
        return (
            f"SIGKILL to {times}; {survived.sweeps} sweeps of {survived.trials} trials: 0 finished trials lost or trained again, "
            f"0 of {survived.sweeps * survived.rows:,} rows lost, every report byte-identical"
        )

    return {f"killed: {name}": partial(row, name) for name in LAUNCHERS}


def broken(place: Path, trials: int, inputs: int) -> Rows:
    """What becomes of each fault, of a large sweep, and of random command lines."""
    return {name: partial(happens, name, place) for name in FAULTS} | {
        f"{trials} trials, at most {FILES} open files": lambda: many_trials(place / "many", trials),
        f"{inputs} random command lines": lambda: try_command_lines(inputs, place / "command lines"),
        f"{inputs} random configuration files": lambda: try_yaml_files(inputs, place / "files"),
    }


if __name__ == "__main__":
    main()
