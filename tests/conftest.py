"""What every test needs: our kernels' switches set before torch is imported, and one thread, as in a sweep."""

import sys
from pathlib import Path

import pytest

import sweep  # noqa: F401  # sets MKL_CBWR, which MKL reads once


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def no_cache(tmp_path: Path) -> Path:
    """A cache folder in which nothing is cached."""
    return tmp_path / "cache"
