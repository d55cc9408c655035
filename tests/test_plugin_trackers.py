"""The trackers of plug-ins: they get every row and the record; a fault is a warning, and no trial changes."""

import logging
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import ConfigError
from sweep.launch.launch import run
from sweep.registry import GROUPS
from sweep.store.store import Store
from sweep.trackers.options import TrackerOptions
from tests.support.commands import TOY, resolved, untimed
from tests.support.plugins import (
    HERE,
    OURS,
    install,
    on_path,
    ours_alone,
)

TRACKER = """
class Mine:
    def __init__(self, folder, name, config, metrics):
        self.file = folder / "mine.txt"
        assert config["adapter.rank"] == 8 and name.startswith("r8-")
    def write(self, text):
        with self.file.open("a") as file:
            print(text, file=file)
    def log(self, step, row):
        {}
        if "eval/loss" in row:
            self.write((step, row["eval/loss"]))
    def finish(self, record):
        self.write((20, record.status))
        record.result.clear()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return ours_alone(tmp_path_factory.mktemp("alone"))


def install_tracker(folder: Path, code: str = "pass") -> Path:
    files = {"tracks_module.py": TRACKER.format(code)}
    return install(folder, "tracks", {GROUPS["tracker"]: {"mine": "tracks_module:Mine"}}, files)


def test_tracker_gets_every_row_and_the_record_and_changes_neither(
    tmp_path: Path, alone: dict[str, dict[str, Any]]
) -> None:
    with on_path(install_tracker(tmp_path / "site")):
        asked = resolved(*OURS, common=(*TOY, "tracker.also=[mine]"), cache=tmp_path)
        found = run(asked, Store(tmp_path / "s", None), HERE)
    assert {one.trial_id: untimed(one) for one in found} == alone
    for trial, one in zip(asked, found, strict=True):
        lines = (tmp_path / "s" / trial.label / "mine.txt").read_text().splitlines()
        assert [line.split(",")[0] for line in lines] == ["(0", "(10", "(20", "(20"]
        assert lines[2:] == [str((20, one.result["eval/loss"])), "(20, 'finished')"]


@pytest.mark.parametrize("code", ["raise OSError('full')", "row.clear(); import random; random.seed(0)"])
def test_tracker_of_a_hostile_plugin_costs_a_warning_and_no_trial(
    tmp_path: Path, alone: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture, code: str
) -> None:
    with on_path(install_tracker(tmp_path / "site", code)), caplog.at_level(logging.WARNING):
        asked = resolved(*OURS, common=(*TOY, "tracker.also=[mine]"), cache=tmp_path)
        found = run(asked, Store(tmp_path / "s", None), HERE)
    assert {one.trial_id: untimed(one) for one in found} == alone
    assert caplog.text.count("tracker mine of the plug-in tracks 1.0 (tracks_module") == len(OURS)


def test_tracker_that_no_plugin_gives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker.also = .*'mine' is not a tracker"):
        resolved("seed=0", common=(*TOY, "tracker.also=[mine]"), cache=tmp_path)


def test_tracker_that_two_plugins_give_is_refused(tmp_path: Path) -> None:
    for package in ("first", "second"):
        install(tmp_path / package, package, {GROUPS["tracker"]: {"mine": "m:mine"}}, {})
    with (
        on_path(tmp_path / "first", tmp_path / "second"),
        pytest.raises(ValueError, match=r"'mine' is given by first 1\.0 and by second 1\.0; uninstall what you do not"),
    ):
        TrackerOptions(mode="none", project="p", also=("mine",))
