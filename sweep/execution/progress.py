"""Progress on the terminal: one bar for the base or the pack, one for the sweep; nothing when piped."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class SweepProgress:
    """Bars that are drawn on standard error while a sweep runs."""

    def __init__(self, progress: Progress, trials: int):
        self._progress = progress
        self._sweep = progress.add_task("trials", total=trials, visible=trials > 1)
        self._work = progress.add_task("", visible=False)

    def start(self, what: str, steps: int) -> None:
        """Begin a piece of work of ``steps`` steps, such as a pack."""
        self._progress.reset(self._work, description=what, total=steps, visible=True)

    def step(self, done: int) -> None:
        """Show that ``done`` steps of the current work are done."""
        self._progress.update(self._work, completed=done)

    def trials_done(self, count: int) -> None:
        """Count ``count`` more trials as done."""
        self._progress.advance(self._sweep, count)


@contextmanager
def sweep_progress(trials: int) -> Iterator[SweepProgress]:
    """Show the progress of ``trials`` trials inside the block."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield SweepProgress(progress, trials)
