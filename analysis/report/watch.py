"""Keeps a report fresh while a sweep runs."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.errors import BadRequestError
from analysis.report import report
from analysis.sources import cache
from analysis.sources.load import load
from analysis.statistics.confidence import Generalise
from sweep.text import say


def watch(
    sources: Sequence[str],
    target: Path | None,
    seconds: float,
    go_on: Callable[[], bool] = lambda: True,
    generalise: Generalise = "both",
    margin: float | None = None,
) -> None:
    """Write the report whenever a record or a history changes, looking every ``seconds``, until interrupted.

    ``generalise`` and ``margin`` are those of the report. The page reloads itself and keeps its filters. A sweep
    without any finished trial yet is waited for. Raises BadRequestError for a source that is not a folder.
    """
    if seconds <= 0:
        raise BadRequestError(f"--watch {seconds:g}: the time between two looks must be above 0 seconds")
    folders = [Path(source) for source in sources]
    for folder in folders:
        if not folder.is_dir():
            raise BadRequestError(f"--watch needs a folder on this machine; {folder} is none")
    last: list[str] = []
    while go_on():
        now = [cache.fingerprint(folder) for folder in folders]
        if now != last:
            last = now
            try:
                path = report.write(load(sources), target, max(2, round(seconds)), generalise, margin)
                say(f"{time.strftime('%H:%M:%S')} wrote {path}")
            except BadRequestError as error:
                say(f"{time.strftime('%H:%M:%S')} waiting: {error}")
            sys.stdout.flush()
        time.sleep(seconds)
