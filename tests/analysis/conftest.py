from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep


@pytest.fixture(scope="session")
def rank_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank × targets × init at one learning rate, five seeds, with full and none."""
    trials = grid(rank=[1, 2, 4], targets=["all_linear", "attention"], init=["kaiming", "pissa"])
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "ranks", trials, np.random.default_rng(0))


@pytest.fixture(scope="session")
def tuned_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank × learning rate, five seeds; the highest rate diverges at seed 1."""
    return write_sweep(
        tmp_path_factory.mktemp("sweeps") / "tuned",
        grid(rank=[1, 4], lr=[1e-4, 1e-3, 1e-2]),
        np.random.default_rng(1),
        diverge=lambda trial: trial["optimizer"]["lr"] == 1e-2 and trial["seed"] == 1,
    )
