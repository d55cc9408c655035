"""What a trained model writes to held-out prompts, in one file beside its record: a JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweep.files import read_foreign, replace_file

SAMPLES_FILE = "samples.jsonl"
LARGEST_SAMPLES = 64 << 20
"""Bytes of a file; an answer of 64 tokens has some 300."""


class Sample(NamedTuple):
    """What a model writes to a held-out prompt, and what was expected."""

    prompt: str
    expected: str
    answer: str


def write(samples: Sequence[Sample], path: Path) -> None:
    """Write ``samples`` atomically, in their order."""
    lines = [json.dumps(sample._asdict(), ensure_ascii=False) + "\n" for sample in samples]
    replace_file(path, "".join(lines).encode())


def read(path: Path) -> list[Sample]:
    """The samples in a file that somebody else may have made.

    Raises OSError for a file that is not there or that cannot be read, ValueError for one that holds something else.
    """
    content = read_foreign(path, LARGEST_SAMPLES, links=False)
    return [_sample(line, number) for number, line in enumerate(content.splitlines(), 1)]


def _sample(line: bytes, number: int) -> Sample:
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in Sample._fields):
        raise ValueError(f"not samples (line {number} has no {', '.join(Sample._fields)})")
    return Sample(**{name: values[name] for name in Sample._fields})
