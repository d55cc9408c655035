"""Progress on the terminal: one bar at a time on standard error; nothing when piped."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class ProgressBar:
    """A bar that is drawn while a block runs."""

    def __init__(self, progress: Progress, what: str, total: int):
        self._progress = progress
        self._bar = progress.add_task(what, total=total, text="")

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more steps as done."""
        self._progress.advance(self._bar, steps)

    def say(self, text: str) -> None:
        """Show ``text`` beside the bar."""
        self._progress.update(self._bar, text=text)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[ProgressBar]:
    """Show a bar of ``total`` steps inside the block."""
    console = Console(stderr=True)
    numbers = (TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    columns = (TextColumn("{task.description}"), BarColumn(), *numbers)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield ProgressBar(progress, what, total)
