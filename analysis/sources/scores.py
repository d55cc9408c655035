"""Scores of single examples, from the files beside the records: one metric of several trials, on the examples they share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path

import numpy as np

from analysis.sources import cache
from sweep import scores
from sweep.scores import EVALUATED_FILE, SCORES_FILE, Scores
from sweep.text import reason

MOST_SCORES = 1 << 27
"""Scores of all trials together that are read: 13,000 trials on 10,000 images have as many."""


@dataclass(frozen=True)
class Sheet:
    """One metric of T trials on the E examples that all of them share: a trial's value is Σ ``sums`` / Σ ``weight``.

    ``sums`` (T, E) float32, ``weight`` (E,) float64, ``cluster`` (E,) whatever number the examples that belong together
    have in common; where each is its own, a number for each distinct one. ``whole``: no trial has any other example.
    ``evaluated``: how many of the trials have scores of ``python -m sweep evaluate``; where all have, they are these.
    """

    sums: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray
    whole: bool
    evaluated: int

    @property
    def values(self) -> np.ndarray:
        """The metric of each trial (T,)."""
        values: np.ndarray = self.sums.sum(axis=1, dtype=float) / self.weight.sum()
        return values

    @property
    def of_evaluate(self) -> bool:
        """Whether the scores are those of ``python -m sweep evaluate``."""
        return self.evaluated == len(self.sums)

    @property
    def count(self) -> int:
        """The number E of examples."""
        return len(self.weight)

    @cached_property
    def units(self) -> int:
        """The number of distinct examples, or of clusters where some belong together."""
        return len(np.unique(self.cluster))

    @property
    def clustered(self) -> bool:
        """Whether some examples belong together."""
        return self.units < self.count


def read(folders: Sequence[str], metric: str) -> tuple[Sheet | None, list[str]]:
    """The scores of the trials in ``folders``; and a sentence for each file that does not hold what it should.

    The scores of ``evaluate`` are read where every trial has them. None where some trial has no scores of ``metric``,
    where no example is shared, or where a file is damaged.
    """
    evaluated = sum(os.path.isfile(f"{folder}/{EVALUATED_FILE}") for folder in folders)  # noqa: PTH113 (thousands)
    file = EVALUATED_FILE if evaluated == len(folders) else SCORES_FILE
    paths = [f"{folder}/{file}" for folder in folders]
    try:
        states = np.array([cache.state(path) for path in paths], dtype=np.uint64)
    except OSError:
        return None, []
    sweep, name = Path(folders[0]).parent, f"{metric} {file}"
    if kept := cache.fetch_columns(sweep, name, states):
        return Sheet(**kept, whole=True, evaluated=evaluated), []
    found, problems = _read_each(paths, metric)
    if found is None or problems:
        return None, problems
    sheet, problems = _joined(found, metric, evaluated, folders)
    if sheet is not None and sheet.whole:
        columns = {"sums": sheet.sums, "weight": sheet.weight, "cluster": sheet.cluster}
        cache.keep_columns(sweep, name, states, columns)
    return sheet, problems


def _read_each(paths: Sequence[str], metric: str) -> tuple[list[Scores] | None, list[str]]:
    """The domain that has ``metric`` in each file, None where a file has none; and what is wrong with damaged ones."""
    found: list[Scores] = []
    problems: list[str] = []
    for path in paths:
        try:
            domains = scores.read(Path(path)).values()
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {reason(error)}")
            continue
        own = next((domain for domain in domains if metric in domain.sums), None)
        if own is None:
            return None, problems
        if len(paths) * len(own.weight) > MOST_SCORES:
            return None, [
                f"{len(paths):,} trials on {len(own.weight):,} examples have more than {MOST_SCORES:,} scores"
            ]
        if not np.isfinite(own.sums[metric]).all():
            problems.append(f"{path}: {metric} of an example is not a number")
        own = replace(own, sums={metric: own.sums[metric]})
        first = found[0] if found else own
        alike = all(np.array_equal(getattr(own, name), getattr(first, name)) for name in scores.TYPES)
        found.append(replace(first, sums=own.sums) if alike else own)
    return found, problems


def _joined(
    found: Sequence[Scores], metric: str, evaluated: int, folders: Sequence[str]
) -> tuple[Sheet | None, list[str]]:
    first = found[0]
    if all(one.example is first.example or np.array_equal(one.example, first.example) for one in found):
        whole, places = True, [np.arange(len(first.example))] * len(found)
    else:
        shared = reduce(lambda left, right: left[np.isin(left, right)], (np.unique(one.example) for one in found))
        if not len(shared):
            return None, []
        first_of = (np.unique(one.example, return_index=True) for one in found)
        places = [index[np.searchsorted(example, shared)] for example, index in first_of]
        whole = False
    weight = first.weight[places[0]]
    if not weight.any():
        return None, []
    for one, place, folder in zip(found, places, folders, strict=True):
        if one.weight is not first.weight and not np.array_equal(one.weight[place], weight):
            return None, [f"{folder} weighs an example differently from {folders[0]}, so their scores are left out"]
    sums = np.stack([one.sums[metric][place] for one, place in zip(found, places, strict=True)])
    cluster, example = first.cluster[places[0]], first.example[places[0]]
    alone = len(np.unique(cluster)) == len(cluster)
    return Sheet(sums, weight.astype(float), example if alone else cluster, whole, evaluated), []
