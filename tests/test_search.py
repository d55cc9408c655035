"""Search instead of a grid, with optuna's sweeper: its batches of proposals are packs."""

from pathlib import Path

import pytest
import yaml

from tests.support.commands import command, records, sweep

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install lora-sweep[optuna]")
SEARCH = (
    "+ablation=search",
    "task=toy_regression",
    "tracker=none",
    "training.steps=40",
    "training.eval_every=10",
    "name=s",
    "hydra.sweeper.n_trials=8",
    "hydra.sweeper.n_jobs=4",
    "adapter.rank=choice(1,2)",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def said(place: Path) -> str:
    """What a search in ``place`` has said."""
    done = sweep(*SEARCH, cwd=place)
    return done.stdout + done.stderr


def test_search_packs_and_prunes_its_proposals_and_goes_on_where_it_was(place: Path, said: str) -> None:
    folder = place / "outputs" / "s"
    found = records(folder)
    assert len(found) == 8
    assert {one.status for one in found.values()} == {"finished", "pruned"}
    assert max(one.perf["pack_size"] for one in found.values()) > 1
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == min(one.result["eval/loss"] for one in found.values())
    assert best["best_params"].keys() == {"adapter.rank", "adapter.init", "optimizer.lr"}
    assert said.count("4 trials: 0 exact duplicates dropped, 0 already finished, 4 to train") == 2

    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    [lost, *_] = [name for name, one in found.items() if one.finished]
    (folder / lost / "record.json").unlink()
    sweep(*SEARCH, cwd=place)
    again = records(folder)
    assert again.keys() == found.keys()
    assert {name: one for name, one in again.items() if name != lost} == {
        name: one for name, one in found.items() if name != lost
    }
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {folder / lost / "record.json"}
    assert yaml.safe_load((folder / "optimization_results.yaml").read_text()) == best


@pytest.mark.slow
def test_search_goes_on_after_proposals_that_diverge_or_come_again(tmp_path: Path) -> None:
    sweep(*SEARCH, "optimizer.lr=choice(1e30,1e-2)", "adapter.rank=choice(1)", cwd=tmp_path)
    status = [one.status for one in records(tmp_path / "outputs" / "s").values()]
    assert "diverged" in status
    assert "finished" in status
    assert len(status) < 8  # there are only four distinct ones


@pytest.mark.slow
def test_search_whose_every_proposal_diverges_names_the_rates(tmp_path: Path) -> None:
    lost = command("sweep", *SEARCH, "optimizer.lr=choice(1e30,1e31)", "pruning=null", cwd=tmp_path)
    assert lost.returncode == 1
    [line] = [line for line in lost.stderr.splitlines() if line.startswith("lora-sweep:")]
    assert line.startswith("lora-sweep: none of 8 proposals finished, at learning rates from 1e+30 to 1e+31")


def test_search_log_speaks_of_its_own_trials_alone(said: str) -> None:
    assert "alembic" not in said
    assert "have other settings" not in said
