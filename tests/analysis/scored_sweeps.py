"""Small sweeps whose trials were scored on each test example, and what is said of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from simulate import grid, write_scores, write_sweep

import analysis
from analysis.statistics.cells import observe
from analysis.statistics.compare import Comparison, against, compare
from analysis.tables.table import Table, build

RANKS = grid(range(5), (), rank=[1, 4])


def equal(trial: object) -> float:
    return 1.0


def scored(place: Path, trials: list[dict] = RANKS, truth: Callable = equal, **given: object) -> Path:
    """A sweep of equal cells whose trials were scored; by default with an example effect of 0.113."""
    folder = write_sweep(place / "s", trials, np.random.default_rng(3), truth, points=2)
    return write_scores(folder, np.random.default_rng(4), **({"example_sd": 0.113, "both_sd": 0.03} | given))


def compared(folder: Path, metric: str = "test/loss", generalise: str = "both", **given: float) -> Comparison:
    sweep = analysis.load(folder)
    observations = observe(sweep.trials, ("adapter.rank",), metric, sweep.metrics, generalise)
    [only] = compare(observations, against(observations, ("1",)), **given)
    return only


def table(folder: Path, **given: object) -> Table:
    return build(analysis.load(folder), "adapter.rank", None, **{"baseline": ("1",), **given})


def noted(folder: Path, words: str, **given: object) -> str:
    """The one note of the table that begins with ``words``."""
    [note] = [note for note in table(folder, **given).notes if note.startswith(words)]
    return note
