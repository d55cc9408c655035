"""The local records, the offline W&B files and the W&B API give the same sweep."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from simulate import grid, write_sweep

import analysis
from analysis.columns import is_factor, is_metric
from analysis.errors import BadRequestError
from analysis.sources.folders import read_history
from analysis.sources.frames import flat_row
from sweep import record
from sweep.metrics import OURS
from sweep.trackers.wandb import WandbSettings, WandbTracker, finish_all
from tests.support.loopback_wandb import LoopbackWandb

pytestmark = pytest.mark.usefixtures("clean_wandb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sweep(
        tmp_path / "ranks",
        grid(rank=[1, 4], lr=[1e-3, 1e-2], seeds=range(2)),
        np.random.default_rng(0),
        diverge=lambda trial: trial["optimizer"]["lr"] == 1e-2 and trial["seed"] == 1,
    )


def mirror(folder: Path, place: Path, mode: str) -> None:
    """Log every trial of ``folder`` as the harness would have."""
    outcomes = []
    for item in sorted(folder.glob("trial_*")):
        found = record.read(item)
        assert found is not None
        settings = WandbSettings(place, mode, found.name, found.ablation, 1)
        tracker = WandbTracker(settings, found.trial_id, item.name, flat_row(found.trial), OURS.values())
        for row in read_history(item / "history.jsonl")[0]:
            tracker.log(row.pop("step"), row)
        outcomes.append((tracker, found))
    finish_all(outcomes)


def shared(frame: pd.DataFrame) -> pd.DataFrame:
    """What all three sources hold, in one order."""
    names = [
        n for n in frame.columns if is_factor(n) or is_metric(n) or n in ("trial_id", "status", "name", "ablation")
    ]
    return frame[sorted(names)].sort_values("trial_id").reset_index(drop=True)


def assert_same(ours: analysis.Sweep, theirs: analysis.Sweep) -> None:
    pd.testing.assert_frame_equal(shared(ours.trials), shared(theirs.trials), check_dtype=False)
    left, right = (
        sweep.history.sort_values(["trial_id", "step"])[sorted(ours.history.columns)].reset_index(drop=True)
        for sweep in (ours, theirs)
    )
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


@pytest.mark.slow
def test_wandb_files_equal_the_records(folder: Path):
    mirror(folder, folder, "offline")
    wandb.teardown()
    assert len(analysis.load(folder).trials) == 14
    assert_same(analysis.load(folder), analysis.load(folder / "wandb"))
    assert analysis.load(folder / "wandb").counts == analysis.load(folder).counts


@pytest.mark.slow
def test_wandb_api_equals_the_records(folder: Path, tmp_path: Path, server: LoopbackWandb):
    mirror(folder, tmp_path / "elsewhere", "online")
    assert_same(analysis.load(folder), analysis.load("wandb:local/lora-sweep/ranks"))
    with pytest.raises(BadRequestError, match="no finished trial"):
        analysis.load("wandb:local/lora-sweep/another-group")


def test_wandb_run_that_was_killed_is_missing_by_name(folder: Path, tmp_path: Path):
    place = tmp_path / "killed"
    settings = WandbSettings(place, "offline", "s", None, 1)
    whole = WandbTracker(settings, "whole", "trial_whole", {"adapter.rank": 1, "seed": 0}, OURS.values())
    whole.log(1, {"train/loss": 1.0})
    found = record.read(folder / "trial_00000")
    assert found is not None
    whole.finish(found)
    cut = WandbTracker(settings, "cut", "trial_cut", {"adapter.rank": 2, "seed": 0}, OURS.values())
    cut.log(1, {"train/loss": 1.0})
    cut.finish(found)
    wandb.teardown()
    [path] = [path for path in place.rglob("*.wandb") if "cut" in path.name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sweep = analysis.load(place / "wandb")
    assert list(sweep.trials["trial_id"]) == ["whole"]
    assert sweep.missing == ("trial_cut",)


def test_wandb_api_names_a_dead_server_and_a_malformed_path(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadRequestError, match="must be wandb:ENTITY/PROJECT"):
        analysis.load("wandb:justone")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr("analysis.sources.wandb_api.TIMEOUT_SECONDS", 0.1)
    with pytest.raises(BadRequestError, match="W&B did not give the runs"):
        analysis.load("wandb:local/lora-sweep")
