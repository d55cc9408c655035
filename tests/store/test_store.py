from pathlib import Path

import pytest

from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from sweep.text import failure
from tests.store.left import DONE, ENVIRONMENT
from tests.support.commands import resolved


def test_a_record_says_what_the_trial_was(store: Store, trial: ResolvedTrial) -> None:
    made = store.record_of(trial, ENVIRONMENT, "finished", **DONE)
    assert (made.trial_id, made.name, made.status, made.ablation) == (trial.id, "study", "finished", "rank")
    assert made.trial == trial.science()
    assert (made.trial["adapter"]["rank"], made.trial["seed"], made.environment) == (2, 3, ENVIRONMENT)
    assert (made.params, made.result, made.perf) == ({"trainable": 1}, {"eval/loss": 0.5}, {"step_ms": 1.0})


def test_notes_of_the_plan_and_of_the_training_are_kept(store: Store, tmp_path: Path) -> None:
    [high] = resolved("task.hidden=[16] adapter.rank=12", cache=tmp_path)
    made = store.record_of(high, ENVIRONMENT, "finished", notes=("from training",))
    assert made.notes == (*high.notes, "from training")
    assert len(made.notes) == 2


def test_a_failure_keeps_class_message_and_traceback(store: Store, trial: ResolvedTrial) -> None:
    def broken() -> None:
        raise KeyError("what is missing")

    with pytest.raises(KeyError) as caught:
        broken()
    error = store.record_of(trial, ENVIRONMENT, "failed", error=failure(caught.value)).error
    assert error is not None
    assert (error["type"], error["message"]) == ("KeyError", "'what is missing'")
    assert "in broken" in error["traceback"]
