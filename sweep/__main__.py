"""``python -m sweep``: train a sweep, or inspect an existing one."""

import sys
from importlib import import_module

from sweep.text import run_command

FOLLOW_UPS = ("status", "sync", "evaluate", "plugins")
"""Subcommands about a sweep's folder or the installation; each is a module of ``sweep.cli``."""


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1."""
    run_command(_command, "lora-sweep")


def _command() -> int | None:
    """What ``sys.argv`` asks for."""
    if sys.argv[1:2] and sys.argv[1] in FOLLOW_UPS:
        return import_module(f"sweep.cli.{sys.argv[1]}").main(sys.argv[2:])
    from sweep.cli.run import run

    run()
    return None


if __name__ == "__main__":
    main()
