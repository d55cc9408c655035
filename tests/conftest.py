"""What every test needs: our kernels' switches set before torch is imported, and one thread, as in a sweep."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sweep  # noqa: F401  # sets MKL_CBWR, which MKL reads once

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two threads that spin for each other stall beside another worker

if TYPE_CHECKING:
    from tests.support.loopback_wandb import LoopbackWandb


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that one worker is not left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def no_cache(tmp_path: Path) -> Path:
    """A cache folder in which nothing is cached."""
    return tmp_path / "cache"


@pytest.fixture
def clean_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the key, the settings and the server of whoever runs the tests; leave nothing open."""
    import wandb

    from tests.support.mirror import clean_environment

    for key in set(os.environ) - set(clean_environment(tmp_path)):
        monkeypatch.delenv(key)
    for key, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> "Iterator[LoopbackWandb]":
    """A W&B server on 127.0.0.1 that this process uses."""
    from tests.support.loopback_wandb import LoopbackWandb

    with LoopbackWandb() as running:
        for key, value in running.environment().items():
            monkeypatch.setenv(key, value)
        yield running
