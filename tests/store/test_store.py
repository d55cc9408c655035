from pathlib import Path

import pytest

from sweep import record
from sweep.packs.run_pack import Outcome, failed
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from tests.support.commands import resolved

ENVIRONMENT = {"torch": "2"}
DONE = Outcome("finished", {"trainable": 1}, {"eval/loss": 0.5}, {"step_ms": 1.0})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sweep", "rank")


@pytest.fixture
def trial(tmp_path: Path) -> ResolvedTrial:
    [one] = resolved("adapter.rank=2 seed=3 name=study", cache=tmp_path)
    return one


def leave(store: Store, trial: ResolvedTrial, outcome: Outcome) -> None:
    folder = store.trial_folder(trial)
    folder.mkdir(parents=True, exist_ok=True)
    record.write(store.record_of(trial, outcome, ENVIRONMENT), folder)
    last = 0 if trial.adapter.kind == "none" else 20
    (folder / "history.jsonl").write_text(f'{{"step": 0, "eval/loss": 2.0}}\n{{"step": {last}, "eval/loss": 0.5}}\n')


def test_a_record_says_what_the_trial_was(store: Store, trial: ResolvedTrial) -> None:
    made = store.record_of(trial, DONE, ENVIRONMENT)
    assert (made.trial_id, made.name, made.status, made.ablation) == (trial.id, "study", "finished", "rank")
    assert made.trial == trial.science()
    assert (made.trial["adapter"]["rank"], made.trial["seed"], made.environment) == (2, 3, ENVIRONMENT)
    assert (made.params, made.result, made.perf) == ({"trainable": 1}, {"eval/loss": 0.5}, {"step_ms": 1.0})


def test_notes_of_the_plan_and_of_the_training_are_kept(store: Store, tmp_path: Path) -> None:
    [high] = resolved("task.hidden=[16] adapter.rank=12", cache=tmp_path)
    made = store.record_of(high, Outcome("finished", notes=("from training",)), ENVIRONMENT)
    assert made.notes == (*high.notes, "from training")
    assert len(made.notes) == 2


def test_a_failure_keeps_class_message_and_traceback(store: Store, trial: ResolvedTrial) -> None:
    def broken() -> None:
        raise KeyError("what is missing")

    with pytest.raises(KeyError) as caught:
        broken()
    error = store.record_of(trial, failed(caught.value), ENVIRONMENT).error
    assert error is not None
    assert (error["type"], error["message"]) == ("KeyError", "'what is missing'")
    assert "in broken" in error["traceback"]


def test_only_a_finished_record_of_this_very_trial_counts(store: Store, trial: ResolvedTrial, tmp_path: Path) -> None:
    assert store.settled(trial) is None
    for status in ("failed", "diverged"):
        leave(store, trial, Outcome(status))  # type: ignore[arg-type]
        assert store.settled(trial) is None
    leave(store, trial, DONE)
    found = store.settled(trial)
    assert found is not None
    assert found.trial_id == trial.id
    [other] = resolved("adapter.rank=2 seed=4", cache=tmp_path)
    store.trial_folder(trial).rename(store.trial_folder(other))
    assert store.settled(other) is None
    assert Store(tmp_path / "elsewhere", "rank").settled(trial) is None


def test_a_damaged_record_is_not_passed_over(store: Store, trial: ResolvedTrial) -> None:
    leave(store, trial, DONE)
    (store.trial_folder(trial) / "record.json").write_text("{")
    with pytest.raises(ValueError, match="delete it to run that trial again"):
        store.settled(trial)


def test_an_adapter_that_is_asked_for_must_be_there(store: Store, trial: ResolvedTrial, tmp_path: Path) -> None:
    [keeping] = resolved("adapter.rank=2 seed=3 name=study save_adapter=true", cache=tmp_path)
    assert store.trial_folder(keeping) == store.trial_folder(trial)
    leave(store, trial, DONE)
    assert store.settled(keeping) is None
    store.save_adapter(keeping, {"adapter_config.json": b"{}"})
    assert store.settled(keeping) is None
    store.save_adapter(keeping, {"adapter_model.safetensors": b"weights"})
    assert store.settled(keeping) == store.settled(trial) is not None
    assert (store.trial_folder(trial) / "adapter" / "adapter_model.safetensors").read_bytes() == b"weights"


def test_an_untouched_base_has_no_adapter_to_wait_for(store: Store, tmp_path: Path) -> None:
    [untouched] = resolved("adapter=none save_adapter=true", cache=tmp_path)
    leave(store, untouched, DONE)
    assert store.settled(untouched) is not None


@pytest.mark.parametrize("damage", ["", '{"step": 0}\n', '{"step": 0}\n{"step": 2', '{"step": 20', "[20]\n", None])
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_finished_trial_whose_history_is_cut_is_not_settled(damage: str | None, kind: str, store: Store, tmp_path: Path) -> None:  # fmt: skip
    [trial] = resolved(f"adapter={kind}", cache=tmp_path)
    leave(store, trial, DONE)
    assert store.settled(trial) is not None
    history = store.trial_folder(trial) / "history.jsonl"
    history.unlink() if damage is None else history.write_text(damage)
    whole = kind == "none" and damage == '{"step": 0}\n'
    assert (store.settled(trial) is not None) == whole
