import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep

from analysis.figures.figures import figures
from analysis.report import answer
from tests.support.browser import Browser, start_browser


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of whoever runs the tests stays as it is."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def rank_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank × targets × init at one learning rate, five seeds, with full and none."""
    trials = grid(rank=[1, 2, 4], targets=["all_linear", "attention"], init=["kaiming", "pissa"])
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "ranks", trials, np.random.default_rng(0))


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have their first figure alone: all of them take most of a report's time."""
    monkeypatch.setattr(answer, "figures", lambda *given: islice(figures(*given), 1))


@pytest.fixture(scope="session")
def tuned_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank × learning rate, five seeds; the highest rate diverges at seed 1."""
    return write_sweep(
        tmp_path_factory.mktemp("sweeps") / "tuned",
        grid(rank=[1, 4], lr=[1e-4, 1e-3, 1e-2]),
        np.random.default_rng(1),
        diverge=lambda trial: trial["optimizer"]["lr"] == 1e-2 and trial["seed"] == 1,
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    running = start_browser()
    yield running
    running.quit()
