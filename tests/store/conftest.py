from pathlib import Path

import pytest

from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from tests.support.commands import resolved


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sweep", "rank")


@pytest.fixture
def trial(tmp_path: Path) -> ResolvedTrial:
    [one] = resolved("adapter.rank=2 seed=3 name=study", cache=tmp_path)
    return one
