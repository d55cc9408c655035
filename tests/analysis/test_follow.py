"""A sweep followed while it trains: what each look finds, and what a page is told of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulate import grid, make_trial, write_sweep

from analysis.report.live import MOST_POINTS, Live
from analysis.sources.follow import Follower
from sweep import planned
from sweep.files import start_file
from sweep.record import flatten
from tests.support.commands import ROOT

NAMES = ("r2-s0-00000001", "r2-s1-00000002", "r8-s0-00000003")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A sweep that has planned three trials in two packs and begun none."""
    ranks, seeds = (2, 2, 8), (0, 1, 0)
    settings = {
        name: flatten(make_trial(seed, rank=rank)) for name, rank, seed in zip(NAMES, ranks, seeds, strict=True)
    }
    for name in NAMES:
        (tmp_path / name).mkdir()
    packs = [(200, {name: settings[name] for name in names}) for names in (NAMES[:2], NAMES[2:])]
    planned.add(tmp_path, packs)
    return tmp_path


def log(folder: Path, *rows: dict[str, Any], torn: str = "") -> None:
    with (folder / "history.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + torn)


def test_planned_reads_what_add_wrote_and_the_last_launch_counts(study: Path) -> None:
    planned.add(study, [(50, {NAMES[2]: {"seed": 7}})])
    with (study / "plan.jsonl").open("a") as file:
        file.write('{"steps": 1}\n[]\nnonsense\n')
    found = planned.read(study)
    assert list(found) == list(NAMES)
    assert [(one.pack, one.steps, one.settings["seed"]) for one in found.values()] == [
        (0, 200, 0),
        (0, 200, 1),
        (2, 50, 7),
    ]
    assert found[NAMES[1]].settings == flatten(make_trial(1, rank=2))


def test_follower_reads_each_row_once_and_a_torn_one_when_it_is_whole(study: Path) -> None:
    follower, trial = Follower(study), study / NAMES[0]
    assert list(follower.look()) == sorted(NAMES)
    assert follower.look() == {}
    log(trial, {"step": 10, "train/loss": 1.0}, torn='{"step": 20, "train')
    assert [row["step"] for row in follower.look()[trial.name].rows] == [10]
    log(trial, torn='/loss": 0.5}\n')
    assert follower.look()[trial.name].rows == [{"step": 20, "train/loss": 0.5}]
    assert follower.trials[trial.name].at == 20


def test_follower_begins_again_where_another_attempt_does(study: Path) -> None:
    follower, trial = Follower(study), study / NAMES[0]
    log(trial, {"step": 10, "train/loss": 1.0})
    first = follower.look()[trial.name].attempt
    start_file(trial / "history.jsonl")
    assert follower.look()[trial.name].attempt == first + 1
    log(trial, {"step": 5, "train/loss": 2.0})
    assert [row["step"] for row in follower.look()[trial.name].rows] == [5]


def test_follower_sees_who_trains(study: Path) -> None:
    follower = Follower(study)
    follower.look()
    assert {trial.found.phase for trial in follower.trials.values()} == {"waits"}
    log(study / NAMES[1], {"step": 10, "train/loss": 1.0})
    assert follower.look()[NAMES[1]].found.state == "interrupted"
    hold = (
        "import sys; from pathlib import Path; from sweep.claim import claim\n"
        f"with claim(Path({str(study)!r}), ['00000002']): print(flush=True); sys.stdin.read()"
    )
    line = [sys.executable, "-c", hold]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert {name: trial.found.state for name, trial in follower.look().items()} == {NAMES[1]: "training"}
        owner.kill()
    assert {name: trial.found.state for name, trial in follower.look().items()} == {NAMES[1]: "interrupted"}


def test_live_tells_everything_once_and_then_what_is_new(study: Path) -> None:
    live = Live(study)
    told = live.update()
    assert told is not None
    assert told["whole"]
    [rank, seed] = told["factors"]
    assert (rank["name"], rank["levels"], seed["levels"]) == ("adapter.rank", ["2", "8"], ["0", "1"])
    assert [told["trials"][name]["levels"] for name in NAMES] == [[0, 0], [0, 1], [1, 0]]
    assert [told["trials"][name]["pack"] for name in NAMES] == [0, 0, 1]
    assert live.update() is None
    log(study / NAMES[2], {"step": 10, "train/loss": 1.0})
    told = live.update()
    assert told is not None
    assert (told["whole"], told["metric"]) == (True, "train/loss")  # the first metric: the page begins again
    log(study / NAMES[2], {"step": 20, "train/loss": 0.5})
    told = live.update()
    assert told is not None
    assert not told["whole"]
    assert told["rows"] == {NAMES[2]: {"again": False, "steps": [20], "values": [0.5]}}


def test_live_turns_to_the_metric_that_decides_unless_another_is_asked(study: Path) -> None:
    for row in ({"step": 10, "train/loss": 1.0}, {"step": 20, "train/loss": 0.8, "eval/loss": 0.9}):
        log(study / NAMES[0], row)
    decides, asked = Live(study).update(), Live(study, "train/loss").update()
    assert decides is not None
    assert asked is not None
    assert decides["rows"][NAMES[0]]["values"] == [0.9]
    assert asked["rows"][NAMES[0]]["values"] == [1.0, 0.8]


def test_live_opens_a_long_curve_with_points_spread_over_all_of_it(study: Path) -> None:
    log(study / NAMES[0], *({"step": step, "train/loss": 1.0} for step in range(1, 5001)))
    told = Live(study).update()
    assert told is not None
    steps = told["rows"][NAMES[0]]["steps"]
    assert (len(steps), steps[0], steps[-1]) == (MOST_POINTS, 1, 5000)


def test_live_shows_a_sweep_without_a_plan(tmp_path: Path) -> None:
    folder = write_sweep(
        tmp_path / "s",
        grid(range(2), ("full",), rank=[1, 2]),
        np.random.default_rng(0),
        diverge=lambda t: t["seed"] == 1,
    )
    told = Live(folder).update()
    assert told is not None
    phases = [trial["phase"] for trial in told["trials"].values()]
    assert (phases.count("done"), phases.count("lost")) == (3, 3)
    assert "loss is not finite" in told["trials"]["trial_00005"]["detail"]
    assert told["metric"] == "eval/loss"
    assert {len(rows["steps"]) for rows in told["rows"].values()} == {5}


def test_look_reads_no_history_that_is_a_link(tmp_path: Path) -> None:
    trial = tmp_path / "s" / "r1-01234567"
    trial.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text('{"step": 1, "eval/loss": 0.5}\n')
    (trial / "history.jsonl").symlink_to(tmp_path / "elsewhere")
    [found] = Follower(tmp_path / "s").look().values()
    assert (found.rows, found.steps, found.settings) == ([], None, {})
