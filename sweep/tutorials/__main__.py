"""``python -m sweep.tutorials NAME``: a tutorial's claims beside what its finished ablation shows."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sweep.errors import ConfigError

NAMES = ("toy", "mnist", "merge", "attention", "llama")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and leave it in ``outputs/tutorials``; 1 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep.tutorials",
        description="Print a tutorial's claims beside what was measured, after: python -m sweep +ablation=tutorial_NAME",
    )
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args(arguments).name
    from sweep.tutorials.report import report
    from sweep.tutorials.trials import trials_of

    try:
        trials = trials_of(Path("outputs") / f"tutorial_{name}")
        tutorial = import_module(f"sweep.tutorials.{name}")
        page = report(tutorial.TITLE, tutorial.rows(trials), _machine(next(iter(trials)).record.environment))
    except (ConfigError, ValueError) as error:
        print(f"sweep.tutorials: {error}", file=sys.stderr)
        return 1
    target = Path("outputs") / "tutorials" / f"{name}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page, encoding="utf-8")
    print(page)
    return 0


def _machine(environment: dict[str, object]) -> str:
    return f"Measured on {environment['system']}, {environment['cpu_count']} cores, torch {environment['torch']}, by `make tutorials`."


if __name__ == "__main__":
    sys.exit(main())
