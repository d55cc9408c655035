"""An ablation made by PEFT and the Trainer of transformers, read back from the files that they leave."""

import json
from pathlib import Path

import pytest

import analysis
from analysis.sources import trainer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # those of transformers and PEFT

RANKS, SEEDS = (1, 4), range(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks by three seeds, with PEFT's usual alpha = 2·rank."""
    from tests.support.trainer import train

    place = tmp_path_factory.mktemp("theirs")
    for rank in RANKS:
        for seed in SEEDS:
            train(place / f"r{rank}-seed{seed}", rank, seed)
    return place


def test_load_reads_settings_metrics_and_history_of_each_run(folder: Path) -> None:
    results = analysis.load(folder)
    assert sorted(zip(results.trials["config.r"], results.trials["seed"], strict=True)) == [
        (rank, seed) for rank in RANKS for seed in SEEDS
    ]
    for row in results.trials.to_dict("records"):
        state = json.loads((folder / row["run"] / "checkpoint-6" / "trainer_state.json").read_text())
        assert row["eval/loss"] == [line["eval_loss"] for line in state["log_history"] if "eval_loss" in line][-1]
    [name] = results.trials.loc[results.trials["run"] == "r1-seed0", "trial_id"]
    one = results.history[results.history["trial_id"] == name]
    assert list(one["step"]) == [2, 3, 4, 6]
    assert one["eval/loss"].notna().sum() == 2


def test_load_of_trainer_runs_is_compared_with_alpha_named(folder: Path, tmp_path: Path) -> None:
    results = analysis.load(folder)
    shown = results.table("r", baseline=1)
    assert "r together with lora alpha (lora alpha = 2·r)" in str(shown)
    assert set(shown.frame["verdict"].dropna()) <= {"better", "worse", "not distinguishable"}
    page = results.report(tmp_path).read_text(encoding="utf-8")
    assert "How does eval loss on theirs" in page


def test_read_names_a_run_that_stopped_early_and_a_damaged_file(folder: Path, tmp_path: Path) -> None:
    state = json.loads((folder / "r1-seed0" / "checkpoint-3" / "trainer_state.json").read_text())
    for name, content in (("a-seed0", json.dumps(state)), ("b-seed0", "{}"), ("c-seed0", "[1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(content)
    raw = trainer.read(tmp_path, trainer.state_files(tmp_path), trainer.Roles())
    assert [row["run"] for row in raw.trials] == ["a-seed0"]
    assert any("a-seed0 ends at step 3 of 6" in problem for problem in raw.problems)
    assert sum("is left out" in problem for problem in raw.problems) == 2


def test_read_leaves_out_what_is_no_configuration_and_takes_the_last_state(tmp_path: Path) -> None:
    for run, config in (("r1", "{"), ("r2", "[]")):
        for step in (9, 10):  # by name, the last comes first
            place = tmp_path / run / f"checkpoint-{step}"
            place.mkdir(parents=True)
            rows = [{"step": step, "loss": step / 10}, {"train_runtime": 3.0}]
            (place / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": rows}))
        (tmp_path / run / "adapter_config.json").write_text(config)
    found = analysis.load(tmp_path)
    assert list(found.trials["train/loss"]) == [1.0, 1.0]
    assert list(found.history["step"]) == [10, 10]
    first, second = (line for line in found.problems if "adapter_config.json" in line)
    assert first.startswith(f"{tmp_path / 'r1' / 'adapter_config.json'} is left out: ")
    assert second == f"{tmp_path / 'r2' / 'adapter_config.json'} is left out: not a configuration of PEFT"
