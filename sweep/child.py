"""Start a sweep from Python: the command in a process of its own, whose results are loaded at its end.

The process sets its numerical environment before torch is there, whatever the caller has imported, and needs no
``__main__`` guard. This is the one module of the harness that asks the analysis.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from sweep import record
from sweep.errors import CommandError

if TYPE_CHECKING:
    from analysis import Results

Value = str | bool | int | float | None
LOOK_SECONDS = 0.2
TIME_TO_END = 5.0
"""Seconds after which an interrupt is passed on to a process that did not receive it."""
PLAIN = re.compile(r"[\w.+/:${},\[\]-]*")
"""Texts that Hydra reads as they stand."""


def run(*overrides: str, name: str, **settings: Value | Iterable[Value]) -> Results:
    """Train a sweep as ``python -m sweep -m`` does, show its messages and its progress, and load its results.

    Args:
        overrides: words of the command line, such as ``"+ablation=rank"`` or ``"adapter.rank=1,2"``.
        name: the sweep's folder below ``outputs/``; a second call continues with what is not finished there.
        settings: further ones; several values are swept over. One with a dot: ``**{"adapter.rank": [1, 2]}``.

    Trials that diverge or fail are in the results. An interrupt leaves what is finished.
    Raises CommandError, with the command's own text, where it is refused or ends before its trials do.

    >>> results = run("task=toy_regression", "training.steps=4", name="example", seed=range(2))  # doctest: +ELLIPSIS
    [...2 of 2 trials finished; see them with: python -m analysis outputs/example
    >>> results.counts["finished"]
    2

    """
    folder = Path("outputs", name)
    words = [*overrides, *(assignment(key, value) for key, value in settings.items()), f"name={name}"]
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        code = _followed([sys.executable, "-m", "sweep", "-m", *words], folder, errors)
        errors.seek(0)
        said = errors.read().strip()
    if code and not _names_a_trial(said, folder):
        raise CommandError(said.removeprefix("lora-sweep: ") or f"the command ended with exit code {code}")
    from analysis import load

    return load(folder)


def assignment(key: str, value: Value | Iterable[Value]) -> str:
    """A setting as a word of the command line: ``seed=0,1,2`` for several values."""
    several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return f"{key}={','.join(map(_text, several))}"


def _text(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if not isinstance(value, str) or (PLAIN.fullmatch(text) and text):
        return text
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def _followed(line: list[str], folder: Path, errors: IO[str]) -> int:
    """Run ``line`` to its end with its messages on our standard output; return its exit code."""
    with (
        TemporaryFile() as messages,
        subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=messages, stderr=errors, env=_environment()) as process,
        _waited_for(process),
    ):
        screen, position = _Screen(folder), 0
        while True:
            code = process.poll()
            new = os.fstat(messages.fileno()).st_size - position
            written = os.pread(messages.fileno(), new, position)  # a seek would move where the process writes
            lines = written if code is not None else written[: written.rfind(b"\n") + 1]
            position += len(lines)
            screen.show(lines.decode(errors="replace"), is_last=code is not None)
            if code is not None:
                return code
            time.sleep(LOOK_SECONDS)


@contextmanager
def _waited_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Interrupted inside the block, let the process end as it does on Ctrl-C, which a terminal and Jupyter send it too."""
    try:
        yield
    except KeyboardInterrupt:
        try:
            process.wait(TIME_TO_END)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
        raise


def _environment() -> Mapping[str, str]:
    """Our environment, in which Python finds this package."""
    here = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


class _Screen:
    """Our standard output: the command's lines and, where someone is watching, below them how many trials have ended."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._watched = sys.stdout.isatty() or type(sys.stdout).__module__.startswith("ipykernel")
        self._below = ""

    def show(self, lines: str, is_last: bool) -> None:
        """Print ``lines``; the line below them is overwritten, and gone after the last."""
        below = "" if is_last or not self._watched else self._ended()
        if not lines and below == self._below:
            return
        wiped = f"\r{' ' * len(self._below)}\r" if self._below else ""
        print(wiped, lines, below, sep="", end="", flush=True)
        self._below = below

    def _ended(self) -> str:
        trials = record.trial_folders(self._folder) if self._folder.is_dir() else []
        ended = sum((trial / record.RECORD_FILE).exists() for trial in trials)
        return f"{ended} of {len(trials)} trials have ended" if trials else ""


def _names_a_trial(said: str, folder: Path) -> bool:
    """Whether the command ended as it does where a trial diverged or failed, after all of them have ended."""
    found = re.search(r"^lora-sweep: (\S+) (?:diverged|failed): ", said, re.MULTILINE)
    return found is not None and (folder / found[1] / record.RECORD_FILE).exists()
