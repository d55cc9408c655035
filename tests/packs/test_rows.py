from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from sweep import samples
from sweep.packs.rows import PackRows, tracking_mode, wandb_sweep
from sweep.record import Record
from sweep.samples import Sample
from sweep.store.store import Store
from tests.support.commands import history, records, resolved, wandb_runs

WANDB = ("task=toy_regression", "tracker=wandb")


@pytest.mark.parametrize(
    ("overrides", "environment", "project"),
    [
        ("", None, "lora-sweep"),
        ("", "mine", "mine"),
        ("tracker.project=asked", None, "asked"),
        ("tracker.project=asked", "mine", "asked"),
    ],
)
def test_wandb_sweep_has_the_project_that_is_asked_for(
    overrides: str, environment: str | None, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, Any] = {}

    def init(**settings: Any) -> Any:
        opened.update(settings)
        return SimpleNamespace(define_metric=lambda *args, **more: None)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if environment:
        monkeypatch.setenv("WANDB_PROJECT", environment)
    [trial] = resolved(overrides, common=WANDB, cache=tmp_path)
    PackRows([trial], store := Store(tmp_path, None), wandb_sweep(trial, store, tracking_mode(trial)))
    assert opened["project"] == project
    assert opened["group"] == "toy_regression"


def test_rows_go_to_their_own_trial_and_none_to_one_that_has_stopped(tmp_path: Path) -> None:
    pack = resolved("seed=0", "seed=1", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    sinks = PackRows(pack, store, mirror=None)
    sinks.log(0, [{"eval/loss": 0.0}, {"eval/loss": 1.0}])
    sinks.log(1, [{"train/loss": 0.5}, None])
    sinks.finish(
        [Record(trial.id, "n", "finished", trial=trial.science(), result={"eval/loss": 0.5}) for trial in pack]
    )
    rows = [history(store.trial_folder(trial)) for trial in pack]
    assert rows == [
        [{"step": 0, "eval/loss": 0.0}, {"step": 1, "train/loss": 0.5}],
        [{"step": 0, "eval/loss": 1.0}],
    ]
    assert [one.trial_id for one in records(tmp_path / "sweep").values()] == [trial.id for trial in pack]


def test_rows_are_on_disk_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sweep.packs.rows.time.monotonic", lambda: now)
    [trial] = resolved("seed=0", cache=tmp_path)
    store = Store(tmp_path / "sweep", None)
    sinks = PackRows([trial], store, mirror=None)
    sinks.log(0, [{"eval/loss": 0.0}])
    sinks.flush()
    assert history(store.trial_folder(trial)) == []
    now = 101.0
    sinks.flush()
    assert len(history(store.trial_folder(trial))) == 1


@pytest.mark.usefixtures("clean_wandb")
def test_rows_of_an_abandoned_pack_are_written_and_its_mirrors_closed_once(tmp_path: Path) -> None:
    [trial] = resolved("", common=WANDB, cache=tmp_path)
    store, written = Store(tmp_path / "sweep", None), [Sample("Who?", "God", "A man")]
    sinks = PackRows([trial], store, wandb_sweep(trial, store, "offline"))
    sinks.log(0, [{"eval/loss": 1.0}])
    sinks.save_samples(0, written)
    sinks.abandon()
    [run] = wandb_runs(tmp_path / "sweep")
    assert (run.history[0]["eval/loss"], run.exit_code) == (1.0, 1)
    assert "samples" in run.history[1]
    assert history(store.trial_folder(trial)) == [{"step": 0, "eval/loss": 1.0}]
    assert (store.trial_folder(trial) / "trial.log").read_text().endswith(" interrupted\n")
    sinks.save_samples(0, written)
    sinks.abandon()
    assert wandb_runs(tmp_path / "sweep") == [run]
    assert samples.read(store.trial_folder(trial) / samples.SAMPLES_FILE) == written
