"""What a trained trial scores on each held-out example, in one file beside its record.

Needs numpy and safetensors, never torch, because the analysis imports this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sweep.files import read_foreign, replace_file

SCORES_FILE = "scores.safetensors"
EVALUATED_FILE = "scores.evaluated.safetensors"
"""What ``python -m sweep evaluate`` writes beside the first: the same trial on more examples."""
LARGEST_SCORES = 256 << 20
"""Largest file, in bytes; a metric of 10,000 examples takes 40,000."""

Domain = Literal["target", "source"]
TYPES = {"example": np.uint64, "cluster": np.int32, "weight": np.float32}


@dataclass(frozen=True)
class Scores:
    """The E test examples of one domain, in the order in which they were scored.

    ``example`` (E,) uint64 says which example it is, by its content; ``cluster`` (E,) int32 has one number for the
    examples that belong together, such as the verses of a chapter. A metric is the sum of its ``sums`` (E,) float32,
    by its full name, over that of ``weight`` (E,) float32. All four follow from the trial alone.
    """

    example: np.ndarray
    cluster: np.ndarray
    weight: np.ndarray
    sums: Mapping[str, np.ndarray] = field(default_factory=dict)


def write(scores: Mapping[Domain, Scores], path: Path) -> None:
    """Write the scores of both domains atomically. Raises ValueError for what ``read`` would refuse."""
    tensors: dict[str, np.ndarray] = {}
    for domain, own in scores.items():
        named = {name: getattr(own, name) for name in TYPES} | dict(own.sums)
        tensors |= {f"{domain}.{name}": np.ascontiguousarray(values) for name, values in named.items()}
    of_tensors(tensors)
    replace_file(path, save(tensors))


def read(path: Path) -> dict[Domain, Scores]:
    """The scores in an untrusted file.

    Raises OSError for a file that is not there or that cannot be read, ValueError for one that holds something else.
    """
    try:
        return of_tensors(load(read_foreign(path, LARGEST_SCORES, links=False)))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"not scores of examples ({error})") from None


def of_tensors(tensors: Mapping[str, np.ndarray]) -> dict[Domain, Scores]:
    """The scores that are written as ``tensors``. Raises ValueError where they are not scores."""
    scores: dict[Domain, Scores] = {}
    for domain in get_args(Domain):
        own = {name.partition(".")[2]: values for name, values in tensors.items() if name.startswith(f"{domain}.")}
        if not own:
            continue
        types = {name: TYPES.get(name, np.float32) for name in (*TYPES, *own)}
        size = len(own.get("weight", ()))
        for name, dtype in types.items():
            values = own.get(name)
            if values is None or values.dtype != dtype or values.shape != (size,) or not size:
                raise ValueError(f"not scores of examples ({domain}.{name} is not one {np.dtype(dtype)} an example)")
        if not (own["weight"].min() >= 0 and 0 < own["weight"].sum() < np.inf):
            raise ValueError(f"not scores of examples ({domain}.weight is not a weight of each example)")
        fields = {name: own.pop(name) for name in TYPES}
        scores[domain] = Scores(**fields, sums=own)
    if not scores:
        raise ValueError("not scores of examples (it has none)")
    return scores
