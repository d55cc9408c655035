import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.sources import cache
from analysis.sources.sweep import Raw


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", grid(rank=[1, 2], seeds=range(2)), np.random.default_rng(0))


def test_load_gives_one_row_a_trial_with_factors_metrics_and_identity(sweep_folder: Path):
    sweep = analysis.load(sweep_folder)
    assert len(sweep.trials) == 8
    assert sweep.counts == {"finished": 8, "pruned": 0, "diverged": 0, "failed": 0, "missing": 0}
    row = sweep.trials.iloc[0]
    assert (row["adapter.rank"], row["task.name"], row["task.data.length"], row["seed"]) == (1, "transformer", 64, 0)
    assert row["params/trainable_ratio"] == pytest.approx(2048 / 423048)
    assert len(sweep.history) == 8 * 5
    assert set(sweep.history["trial_id"]) == set(sweep.trials["trial_id"])


def test_cache_gives_the_same_frames_and_sees_changes(sweep_folder: Path):
    first, second = analysis.load(sweep_folder), analysis.load(sweep_folder)
    assert len(list(cache.place().iterdir())) >= 2
    assert not list(sweep_folder.glob(".*"))
    assert first.trials.equals(second.trials)
    assert first.history.equals(second.history)
    assert list(first.trials.dtypes) == list(second.trials.dtypes)
    path = sweep_folder / "trial_00000" / "record.json"
    record = json.loads(path.read_text())
    record["result"]["eval/loss"] = 123.25
    path.write_text(json.dumps(record))
    assert 123.25 in set(analysis.load(sweep_folder).trials["eval/loss"])


def test_cache_is_the_users_own_and_a_damaged_one_is_made_anew(
    sweep_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    first = analysis.load(sweep_folder)
    files = sorted((tmp_path / "own" / "lora-sweep" / "analysis").iterdir())
    assert [path.suffixes for path in files] == [[".history", ".parquet"], [".trials", ".parquet"]]
    for path in files:
        whole = path.read_bytes()
        for damaged in (b"", whole[:-100], b"PAR1" + bytes(200) + b"PAR1"):
            path.write_bytes(damaged)
            assert analysis.load(sweep_folder).trials.equals(first.trials)
            assert path.read_bytes() == whole


def test_cache_sees_a_change_of_equal_size_and_time(sweep_folder: Path):
    analysis.load(sweep_folder)
    path = sweep_folder / "trial_00000" / "record.json"
    state, text = path.stat(), path.read_text()
    path.write_text(text.replace('"finished"', '"pruned"  '))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert analysis.load(sweep_folder).counts["pruned"] == 1


def test_load_of_a_moved_sweep_has_its_new_folders(sweep_folder: Path):
    analysis.load(sweep_folder)
    moved = sweep_folder.rename(sweep_folder.with_name("moved"))
    sweep = analysis.load(moved)
    assert sweep.name == "moved"
    assert all(Path(folder).parent == moved for folder in sweep.trials["folder"])


def test_load_names_what_is_missing_corrupt_and_torn(sweep_folder: Path):
    (sweep_folder / "trial_00000" / "record.json").unlink()
    (sweep_folder / "trial_00001" / "record.json").write_text("{broken")
    with (sweep_folder / "trial_00002" / "history.jsonl").open("a") as file:
        file.write('{"step": 300, "eval/l')
    (sweep_folder / "report").mkdir()
    (sweep_folder / "wandb").mkdir()
    (sweep_folder / ".cache").mkdir()
    (sweep_folder / "notes").mkdir()
    for sweep in (analysis.load(sweep_folder), analysis.load(sweep_folder)):
        assert sweep.missing == ("trial_00000",)
        assert len(sweep.trials) == 6
        assert any("trial_00001/record.json is not valid JSON" in line for line in sweep.problems)
        assert any("trial_00002 (1)" in line for line in sweep.problems)
        assert 300 not in set(sweep.history["step"])


def test_load_keeps_the_error_of_failed_trials(sweep_folder: Path):
    path = sweep_folder / "trial_00003" / "record.json"
    record = json.loads(path.read_text())
    record |= {"status": "failed", "result": {}, "error": {"type": "OSError", "message": "disk", "traceback": ""}}
    path.write_text(json.dumps(record))
    sweep = analysis.load(sweep_folder)
    assert sweep.counts["failed"] == 1
    failed = sweep.trials[sweep.trials["status"] == "failed"].iloc[0]
    assert (failed["error.type"], failed["error.message"]) == ("OSError", "disk")


def test_load_makes_lists_and_mixed_values_text(sweep_folder: Path):
    path = sweep_folder / "trial_00000" / "record.json"
    record = json.loads(path.read_text())
    record["trial"]["adapter"]["targets"] = ["q_proj", "v_proj"]
    record["trial"]["adapter"]["layers"] = [0, 1]
    path.write_text(json.dumps(record))
    trials = analysis.load(sweep_folder).trials
    assert trials["adapter.targets"].iloc[0] == "q_proj+v_proj"
    assert trials["adapter.layers"].iloc[0] == "0+1"


def test_load_counts_a_trial_of_several_sources_once(sweep_folder: Path, tmp_path: Path):
    other = write_sweep(tmp_path / "other", grid(rank=[4], seeds=range(2)), np.random.default_rng(1))
    assert len(analysis.load([sweep_folder, other]).trials) == 8 + 6
    twice = analysis.load([sweep_folder, sweep_folder])
    assert len(twice.trials) == 8
    assert any("8 trials are in several sources" in line for line in twice.problems)
    assert len(twice.history) == 40


def test_load_refuses_sources_without_a_finished_trial(tmp_path: Path):
    (tmp_path / "outputs" / "empty").mkdir(parents=True)
    with pytest.raises(BadRequestError, match="no finished trial"):
        analysis.load(tmp_path / "outputs" / "empty")
    with pytest.raises(BadRequestError, match="holds empty"):
        analysis.load(tmp_path / "outputs" / "emty")
    (tmp_path / "outputs" / "empty" / "trial" / ".hydra").mkdir(parents=True)
    with pytest.raises(BadRequestError, match="unfinished: trial"):
        analysis.load(tmp_path / "outputs" / "empty")
    write_sweep(tmp_path / "outputs" / "full", grid(rank=[1], seeds=[0]), np.random.default_rng(0))
    with pytest.raises(BadRequestError, match="holds several sweeps; name one or more of them: empty, full"):
        analysis.load(tmp_path / "outputs")
    with pytest.raises(BadRequestError, match="is one trial; its sweep is"):
        analysis.load(tmp_path / "outputs" / "full" / "trial_00000")
    with pytest.raises(BadRequestError, match="no source"):
        analysis.load([])


def test_load_counts_a_trial_that_is_there_twice_once_and_misses_no_history(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", grid(range(2), (), rank=[1]), np.random.default_rng(0))
    first = sweep / "trial_00000"
    shutil.copytree(first, sweep / "trial_00009")
    (first / "history.jsonl").unlink()
    (sweep / "trial_00001" / "history.jsonl").write_text('{"step": -1}\n[]\n{"step": 1, "eval/loss": 0.5}\n')
    found = analysis.load(sweep)
    assert found.problems == (
        "unreadable history lines were left out in trial_00001 (2)",
        "trials with several records, of which one is used: s-trial_00000",
    )
    assert len(found.trials) == 2


def test_raw_leaves_out_a_trial_that_would_make_the_frames_too_wide() -> None:
    raw = Raw()
    raw.add({"trial_id": "a"} | {f"task.{number}": 0 for number in range(2000)}, [], "a/record.json")
    raw.add({"trial_id": "b"}, [{"step": 0}], "b/record.json")
    assert raw.problems == ["a/record.json is left out: with it, the trials would have more than 2,000 columns"]
    assert raw.trials == [{"trial_id": "b"}]
