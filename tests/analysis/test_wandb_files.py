import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from analysis.sources.wandb_files import WandbRun, read_run
from tests.support.commands import wandb_runs

ROWS = [{"step": step, "train/loss": 1.0 / (1 + step)} for step in range(40)]
LONG = "spans blocks of 32 KiB " * 5000

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a real offline run below ``tmp_path`` and returns its file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")

    def one(run_id: str) -> Path:
        settings = wandb.Settings(silent=True, console="off", symlink=True, x_disable_stats=True)
        run = wandb.init(
            mode="offline",
            dir=tmp_path,
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
        return next(tmp_path.glob(f"wandb/offline-run-*-{run_id}/*.wandb"))

    return one


def test_read_run_gives_what_was_logged(write: Write) -> None:
    run = read_run(write("one"))
    assert (run.id, run.name, run.group) == ("one", "name of one", "sweep")
    assert run.config == {"adapter.rank": 8, "notes": LONG, "nested": {"a": 1}}
    assert run.history[:-1] == ROWS
    assert run.summary["train/loss"] == {"min": 1 / 40, "last": 1 / 40}
    assert (run.summary["status"], run.summary["step"]) == ("finished", 40)
    assert (run.exit_code, run.truncated) == (3, False)


def test_read_run_makes_non_finite_values_numbers_again(write: Write) -> None:
    row = read_run(write("one")).history[-1]
    assert math.isnan(row["nan"])
    assert (row["up"], row["down"]) == (math.inf, -math.inf)


def test_read_run_gives_the_rows_before_a_cut(write: Write, tmp_path: Path) -> None:
    content = write("one").read_bytes()
    assert len(content) > 3 * 32 * 1024
    cut = tmp_path / "run-one.wandb"
    rows_read = []
    for size in [*range(40), *range(40, len(content), 997), *range(len(content) - 200, len(content))]:
        cut.write_bytes(content[:size])
        run = read_run(cut)
        assert run.id == "one"
        assert [row for row in run.history if "nan" not in row] == ROWS[: len(run.history)]
        rows_read.append(len(run.history))
    assert rows_read == sorted(rows_read)
    assert (rows_read[0], rows_read[-1]) == (0, 41)


def test_read_run_tells_a_cut_inside_a_record(write: Write, tmp_path: Path) -> None:
    cut = tmp_path / "run-one.wandb"
    cut.write_bytes(write("one").read_bytes()[:-1])
    run = read_run(cut)
    assert run.truncated
    assert run.exit_code is None or run.history


def test_read_run_ends_at_a_damaged_byte(write: Write) -> None:
    path = write("one")
    content = bytearray(path.read_bytes())
    content[len(content) - 1000] ^= 0xFF
    path.write_bytes(content)
    run = read_run(path)
    assert run.truncated
    assert run.history == ROWS[: len(run.history)]


def test_read_run_takes_zeros_at_the_end_for_a_cut(write: Write) -> None:
    path = write("one")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert read_run(path).truncated
    assert read_run(path).history[:-1] == ROWS


def test_read_run_refuses_another_file_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match=r"run-x\.wandb is not a \.wandb file"):
        read_run(path)


def test_run_files_have_each_run_of_a_folder_once(write: Write, tmp_path: Path) -> None:
    old = write("old").parent
    write("b")
    write("a")
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
