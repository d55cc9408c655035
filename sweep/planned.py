"""What the launches of a sweep plan to train: ``plan.jsonl`` has a line for each pack, written before it trains.

It is for observers, who learn from it of trials that have no record yet. Nothing that trains reads it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.files import append_to, read_foreign

PLAN_FILE = "plan.jsonl"
LARGEST_PLAN = 256 << 20


@dataclass(frozen=True)
class Planned:
    """A trial that is to be trained for so many ``steps``, in the pack of this number; ``settings`` has dotted keys."""

    pack: int
    steps: int
    settings: Mapping[str, Any]


def add(folder: Path, packs: Iterable[tuple[int, Mapping[str, Mapping[str, Any]]]]) -> None:
    """Add packs to the plan of the sweep in ``folder``: the steps of each, and its trials' settings by label."""
    lines = []
    for steps, trials in packs:
        first = next(iter(trials.values()))
        shared = {key: value for key, value in first.items() if all(one.get(key) == value for one in trials.values())}
        own = {name: {k: v for k, v in one.items() if k not in shared} for name, one in trials.items()}
        lines.append(json.dumps({"steps": steps, "shared": shared, "trials": own}).encode() + b"\n")
    with append_to(folder / PLAN_FILE, create=True) as file:
        file.write(b"".join(lines))


def read(folder: Path) -> dict[str, Planned]:
    """The planned trials by label, each as the last launch planned it; lines that are not a plan are left out."""
    found: dict[str, Planned] = {}
    try:
        content = read_foreign(folder / PLAN_FILE, LARGEST_PLAN, links=False)
    except OSError:
        return found
    for pack, line in enumerate(content.splitlines()):
        try:
            plan = json.loads(line)
            found |= {
                str(label): Planned(pack, int(plan["steps"]), {**plan["shared"], **own})
                for label, own in plan["trials"].items()
            }
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return found
