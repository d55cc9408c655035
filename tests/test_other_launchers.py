"""Hydra's other launchers run our application too: each job is a pack of one, and its record is the same."""

from pathlib import Path

import pytest

from sweep.record import Record
from tests.support.commands import TOY, records, sweep, untimed

pytestmark = pytest.mark.slow

SWEEP = ("-m", *TOY, "name=s", "seed=0,1")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """The records that our own launcher leaves."""
    folder = tmp_path_factory.mktemp("ours")
    sweep(*SWEEP, "hydra/launcher=packed", cwd=folder)
    return records(folder / "outputs" / "s")


@pytest.mark.parametrize(
    ("launcher", "plugin"), [("joblib", "hydra_joblib_launcher"), ("submitit_local", "hydra_submitit_launcher")]
)
def test_launchers_of_hydras_own_leave_equal_records(
    launcher: str, plugin: str, ours: dict[str, Record], tmp_path: Path
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"pip install {plugin.replace('_', '-')}")
    sweep(*SWEEP, f"hydra/launcher={launcher}", cwd=tmp_path)
    theirs = records(tmp_path / "outputs" / "s")
    assert len(theirs) == 2
    assert {name: untimed(one) for name, one in theirs.items()} == {name: untimed(one) for name, one in ours.items()}
    assert {one.perf["pack_size"] for one in theirs.values()} == {1}
