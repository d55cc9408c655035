"""Whole sweeps from the command line, and every place where their results can be read: all must agree."""

import csv
import json
import math
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.record import Record
from tests.support.builders import TOLERANCE
from tests.support.commands import TOY, command, history, records, sweep, tree, untimed, wandb_runs

SOURCE = "the quick brown fox jumps over the lazy dog. " * 40
TARGET = "ye quikke broun foxe lepeth ouer ye slowe hounde. " * 40
SMALL = (
    "task.source_text=source.txt",
    "task.target_text=target.txt",
    "task.pretraining.steps=5",
    "task.eval_windows=20",
    "task.validation=12",
    "training.steps=4",
    "training.eval_every=2",
    "training.log_every=1",
)
STUDY = (
    "-m",
    "task=transformer_tiny",
    "adapter.rank=1,4",
    "adapter.alpha=8",
    "adapter.init=kaiming,pissa",
    "seed=0,1",
    "name=my-study",
    *SMALL,
)
FILES = {
    ".hydra",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "history.jsonl",
    "record.json",
    "scores.safetensors",
    "trial.log",
}


@dataclass(frozen=True)
class Study:
    """A finished launch: where it ran, and what it left."""

    cwd: Path
    said: str

    @property
    def folder(self) -> Path:
        return self.cwd / "outputs" / "my-study"

    @property
    def records(self) -> dict[str, Record]:
        return records(self.folder)


def launch(cwd: Path, *more: str) -> Study:
    (cwd / "source.txt").write_text(SOURCE)
    (cwd / "target.txt").write_text(TARGET)
    return Study(cwd, sweep(*STUDY, *more, cwd=cwd).stdout)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return launch(tmp_path_factory.mktemp("basic"), "hydra/launcher=basic")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return launch(tmp_path_factory.mktemp("packed"), "hydra/launcher=packed")


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "packed"])
def test_study_has_a_trial_with_all_its_files_for_every_combination(
    launcher: str, request: pytest.FixtureRequest
) -> None:
    study: Study = request.getfixturevalue(launcher)
    cells = {
        (one.trial["adapter"]["rank"], one.trial["adapter"]["init"], one.trial["seed"])
        for one in study.records.values()
    }
    assert cells == {(r, i, s) for r in (1, 4) for i in ("kaiming", "pissa") for s in (0, 1)}
    assert len(study.records) == 8
    for label, one in study.records.items():
        assert tree(study.folder / label) == FILES
        assert (one.status, one.name, one.trial["adapter"]["alpha"]) == ("finished", "my-study", 8.0)
        assert label.endswith(one.trial_id[:8])
    assert {path.name for path in study.folder.iterdir()} == {
        *study.records,
        "multirun.yaml",
        "wandb",
        ".lock",
        "plan.jsonl",
    }
    assert {path.name for path in study.cwd.iterdir()} == {"outputs", "source.txt", "target.txt"}
    assert {path.name for path in (study.cwd / "outputs").iterdir()} == {"my-study", ".cache"}


def assert_alike(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Equal records; results within ``TOLERANCE``: some processors round a product of other rows differently."""
    assert left.keys() == right.keys()
    for label, one in left.items():
        assert one.pop("result") == pytest.approx(right[label].pop("result"), rel=TOLERANCE, abs=0.0, nan_ok=True)
    assert left == right


def test_study_of_both_launchers_is_the_same(basic: Study, packed: Study) -> None:
    mine, hydras = ({label: untimed(one) for label, one in study.records.items()} for study in (packed, basic))
    rows, others = ({label: history(study.folder / label) for label in basic.records} for study in (packed, basic))
    assert_alike(mine, hydras)
    for label in basic.records:
        assert rows[label] == [pytest.approx(row, rel=TOLERANCE, abs=0.0, nan_ok=True) for row in others[label]]
    assert {one.perf["pack_size"] for one in basic.records.values()} == {1}
    assert {one.perf["pack_size"] for one in packed.records.values()} == {4}  # a rank each
    for label in basic.records:
        for name in ("config.yaml", "overrides.yaml"):
            mine, hydras = (
                yaml.safe_load((study.folder / label / ".hydra" / name).read_text()) for study in (packed, basic)
            )
            assert mine == hydras
        mine, hydras = (
            yaml.safe_load((study.folder / label / ".hydra/hydra.yaml").read_text())["hydra"]
            for study in (packed, basic)
        )
        assert mine.keys() == hydras.keys()
        assert mine["job"] == hydras["job"]
        assert mine["overrides"]["task"] == hydras["overrides"]["task"]


def test_study_histories_have_every_step_and_end_in_the_record(packed: Study) -> None:
    for label, one in packed.records.items():
        rows = history(packed.folder / label)
        assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
        assert [("eval/loss" in row, "train/loss" in row) for row in rows] == [
            (True, False),
            (False, True),
            (True, True),
            (False, True),
            (True, True),
        ]
        last = {key: value for key, value in rows[-1].items() if key != "step"}
        assert last.items() <= one.result.items()
        assert one.result["eval/base_loss"] == pytest.approx(rows[0]["eval/loss"], rel=1e-3)


def test_study_sizes_are_what_the_layers_say(packed: Study) -> None:
    attention, mlp = 2 * 4 * (32 + 32), 2 * 3 * (32 + 88)  # layers × projections × (in + out)
    for one in packed.records.values():
        assert one.trial["adapter"]["targets"] == "all_linear"
        assert one.params["trainable"] == one.trial["adapter"]["rank"] * (attention + mlp)
        assert one.params["trainable_ratio"] == one.params["trainable"] / one.params["total"]


@pytest.mark.parametrize("launcher", ["basic", "packed"])
def test_study_wandb_files_agree_with_the_records(launcher: str, request: pytest.FixtureRequest) -> None:
    study: Study = request.getfixturevalue(launcher)
    runs = {run.name: run for run in wandb_runs(study.folder / "wandb")}
    assert runs.keys() == study.records.keys()
    for label, one in study.records.items():
        run = runs[label]
        assert (run.group, run.exit_code, run.truncated) == ("my-study", 0, False)
        assert run.config["trial_id"] == one.trial_id
        assert {key: value for key, value in run.config.items() if key not in ("trial_id", "ablation")} == flat(
            one.trial
        )
        assert run.history == history(study.folder / label)
        results = {
            key.removeprefix("result/"): value for key, value in run.summary.items() if key.startswith("result/")
        }
        assert results == one.result
        assert run.summary["status"] == "finished"
        assert run.summary["params/trainable"] == one.params["trainable"]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    items = [
        flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        for key, value in values.items()
    ]
    return {key: value for item in items for key, value in item.items()}


def test_study_table_agrees_with_the_records(packed: Study) -> None:
    question = ("--rows", "adapter.rank", "--metric", "eval/loss")
    done = command("analysis", "table", "outputs/my-study", *question, cwd=packed.cwd)
    assert done.returncode == 0, done.stderr
    [written] = packed.folder.glob("report/*.csv")
    cells = list(csv.DictReader(written.read_text().splitlines()))
    shutil.rmtree(packed.folder / "report")
    assert len(cells) == 2
    for cell in cells:
        by_seed: dict[int, list[float]] = {0: [], 1: []}
        for one in packed.records.values():
            if str(one.trial["adapter"]["rank"]) == cell["adapter.rank"]:
                by_seed[one.trial["seed"]].append(one.result["eval/loss"])
        means = [statistics.mean(losses) for losses in by_seed.values()]  # over both inits
        assert (cell["n"], cell["trials"], cell["lost"]) == ("2", "4", "0")
        assert float(cell["mean"]) == pytest.approx(statistics.mean(means), rel=1e-8)
        assert float(cell["std"]) == pytest.approx(statistics.stdev(means), rel=1e-6)
        half = (float(cell["high"]) - float(cell["low"])) / 2
        decimals = 1 - math.floor(math.log10(half))  # two digits of the interval
        assert f"{statistics.mean(means):.{decimals}f} ± {half:.{decimals}f}" in done.stdout


def test_study_goes_on_with_what_is_missing_alone(packed: Study) -> None:
    before = {label: untimed(one) for label, one in packed.records.items()}
    lost = next(iter(before))
    (packed.folder / lost / "record.json").unlink()
    written = modified(packed)
    said = launch(packed.cwd, "hydra/launcher=packed").said
    assert "8 trials: 0 exact duplicates dropped, 7 already finished, 1 to train" in said
    assert "8 of 8 trials finished" in said
    assert_alike({label: untimed(one) for label, one in packed.records.items()}, before)
    assert {label for label, when in modified(packed).items() if when != written[label]} == {lost}
    runs = [run.name for run in wandb_runs(packed.folder / "wandb")]
    assert sorted(runs) == sorted(before)  # the earlier attempt's run is set aside


def modified(study: Study) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in study.folder.glob("*/history.jsonl")}


def test_study_of_one_launcher_goes_on_with_the_other(basic: Study) -> None:
    before, written = basic.records, modified(basic)
    said = launch(basic.cwd, "hydra/launcher=packed").said
    assert "8 trials: 0 exact duplicates dropped, 8 already finished, 0 to train" in said
    assert (basic.records, modified(basic)) == (before, written)


@pytest.mark.parametrize("launcher", ["basic", "packed"])
def test_study_with_a_diverged_trial_says_so_by_its_exit_code_and_keeps_the_others(
    launcher: str, tmp_path: Path
) -> None:
    arguments = ("-m", *TOY, "name=d", f"hydra/launcher={launcher}", "training.log_every=1")
    done = command("sweep", *arguments, "optimizer.lr=1e30,1e-2,1e-2,2e-2", cwd=tmp_path)
    assert done.returncode == 1
    found = {one.trial["optimizer"]["lr"]: (label, one) for label, one in records(tmp_path / "outputs/d").items()}
    assert {lr: one.status for lr, (_, one) in found.items()} == {1e30: "diverged", 0.01: "finished", 0.02: "finished"}
    label, lost = found[1e30]
    assert lost.error is not None
    assert f"{label} diverged: {lost.error['message']} (see outputs/d/{label}/trial.log)" in done.stderr
    assert "Traceback" not in done.stderr
    assert [row["step"] for row in history(tmp_path / "outputs/d" / label)] == [0, 1]
    if launcher == "packed":
        assert "4 trials: 1 exact duplicate dropped, 0 already finished, 3 to train" in done.stdout
        assert "2 of 3 trials finished" in done.stdout
        healthy = [untimed(one) for _, one in found.values() if one.finished]
        sweep(*TOY, "-m", "name=d", "optimizer.lr=1e-2,2e-2", "training.log_every=1", cwd=(tmp_path / "outputs"))
        apart = [untimed(one) for one in records(tmp_path / "outputs/outputs/d").values()]
        assert sorted(healthy, key=json.dumps) == sorted(apart, key=json.dumps)


@pytest.mark.slow
def test_study_of_worker_processes_is_the_same(tmp_path: Path) -> None:
    left = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        more = (f"hydra.launcher.workers={workers}", "hydra.launcher.max_pack=2", "tracker=wandb")
        sweep("-m", *TOY, "name=w", "hydra/launcher=packed", "adapter.rank=2,4", "seed=0,1", *more, cwd=folder)
        left.append({label: untimed(one) for label, one in records(folder / "outputs/w").items()})
        assert len(wandb_runs(folder / "outputs/w/wandb")) == 4
    assert len(left[0]) == 4
    assert left[0] == left[1]
