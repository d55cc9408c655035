import math
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from analysis.sources.wandb_files import WandbRun, read_run
from tests.support.commands import wandb_runs

ROWS = [{"step": step, "train/loss": 1.0 / (1 + step)} for step in range(40)]
LONG = "spans blocks of 32 KiB " * 5000


def written(place: Path, run_id: str) -> Path:
    """Write a real offline run below ``place``; its file."""
    settings = wandb.Settings(silent=True, console="off", symlink=True, x_disable_stats=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        run = wandb.init(
            mode="offline",
            dir=place,
            project="p",
            id=run_id,
            name=f"name of {run_id}",
            group="sweep",
            config={"adapter.rank": 8, "notes": LONG, "nested": {"a": 1}},
            reinit="create_new",
            settings=settings,
        )
        run.define_metric("train/loss", summary="min,last")
        for row in ROWS:
            run.log(row)
        run.log({"step": 40, "nan": math.nan, "up": math.inf, "down": -math.inf})
        run.summary.update({"status": "finished"})
        run.finish(exit_code=3)
        wandb.teardown()  # the file is closed some milliseconds after finish returns
    return next(place.glob(f"wandb/offline-run-*-{run_id}/*.wandb"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is in the file of a finished run."""
    return written(tmp_path_factory.mktemp("whole"), "one").read_bytes()


@pytest.fixture
def path(whole: bytes, tmp_path: Path) -> Path:
    """A file of its own for each test, with the whole run in it."""
    path = tmp_path / "run-one.wandb"
    path.write_bytes(whole)
    return path


def test_read_run_gives_what_was_logged(path: Path) -> None:
    run = read_run(path)
    assert (run.id, run.name, run.group) == ("one", "name of one", "sweep")
    assert run.config == {"adapter.rank": 8, "notes": LONG, "nested": {"a": 1}}
    assert run.history[:-1] == ROWS
    assert run.summary["train/loss"] == {"min": 1 / 40, "last": 1 / 40}
    assert (run.summary["status"], run.summary["step"]) == ("finished", 40)
    assert (run.exit_code, run.truncated) == (3, False)


def test_read_run_makes_non_finite_values_numbers_again(path: Path) -> None:
    row = read_run(path).history[-1]
    assert math.isnan(row["nan"])
    assert (row["up"], row["down"]) == (math.inf, -math.inf)


def test_read_run_gives_the_rows_before_a_cut(whole: bytes, path: Path) -> None:
    assert len(whole) > 3 * 32 * 1024
    rows_read = []
    for size in [*range(40), *range(40, len(whole), 997), *range(len(whole) - 200, len(whole))]:
        path.write_bytes(whole[:size])
        run = read_run(path)
        assert run.id == "one"
        assert [row for row in run.history if "nan" not in row] == ROWS[: len(run.history)]
        rows_read.append(len(run.history))
    assert rows_read == sorted(rows_read)
    assert (rows_read[0], rows_read[-1]) == (0, 41)


def test_read_run_tells_a_cut_inside_a_record(whole: bytes, path: Path) -> None:
    path.write_bytes(whole[:-1])
    run = read_run(path)
    assert run.truncated
    assert run.exit_code is None or run.history


def test_read_run_ends_at_a_damaged_byte(whole: bytes, path: Path) -> None:
    content = bytearray(whole)
    content[len(content) - 1000] ^= 0xFF
    path.write_bytes(content)
    run = read_run(path)
    assert run.truncated
    assert run.history == ROWS[: len(run.history)]


def test_read_run_takes_zeros_at_the_end_for_a_cut(whole: bytes, path: Path) -> None:
    path.write_bytes(whole + bytes(100))
    assert read_run(path).truncated
    assert read_run(path).history[:-1] == ROWS


def test_read_run_refuses_another_file_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match=r"run-x\.wandb is not a \.wandb file"):
        read_run(path)


def test_run_files_have_each_run_of_a_folder_once(tmp_path: Path) -> None:
    old = written(tmp_path, "old").parent
    written(tmp_path, "b")
    written(tmp_path, "a")
    assert (tmp_path / "wandb" / "latest-run").is_symlink()
    (tmp_path / "wandb" / "superseded").mkdir()
    old.rename(tmp_path / "wandb" / "superseded" / old.name)
    assert sorted(run.id for run in wandb_runs(tmp_path)) == ["a", "b"]


def test_run_files_of_a_folder_without_runs_are_none(tmp_path: Path) -> None:
    assert wandb_runs(tmp_path) == []


def test_read_run_of_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "run-killed.wandb").touch()
    assert wandb_runs(tmp_path) == [WandbRun(id="killed", truncated=True)]


def test_read_run_is_imported_without_wandb() -> None:
    check = (
        "import sys, analysis.sources.wandb_files; sys.exit(bool({'torch', 'wandb', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
