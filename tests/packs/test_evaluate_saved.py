"""Saved trials on more test examples: which are scored."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep import scores
from sweep.packs.evaluate_saved import evaluate_saved, saved
from sweep.resolve import resolve
from sweep.scores import EVALUATED_FILE
from sweep.tasks.causal_lm.task import causal_lm
from sweep.training.examples import identify
from tests.support.commands import config


def test_evaluate_saved_counts_the_rows_of_a_language_model_and_not_its_blocks(tmp_path: Path) -> None:
    tiny = pytest.importorskip("tests.support.hugging_face")
    options = tiny.chats("llama", tmp_path, eval_windows=1)
    values = options.model_dump(exclude={"name", "generate"}, exclude_none=True)
    asked = config(
        "task=causal_lm", "adapter=none", f"cache={tiny.CACHE}", *(f"task.{key}={own}" for key, own in values.items())
    )
    record = SimpleNamespace(trial_id=resolve(asked).id)
    [(one, found)] = evaluate_saved([saved(tmp_path, record, asked, 3)], 3)  # type: ignore[arg-type]
    whole = identify(causal_lm(options.model_copy(update={"eval_windows": 100}), tiny.CACHE))["target"]
    assert len(whole.example) == 6
    assert 3 <= len(found["target"].example) < 6
    assert set(found["target"].example) < set(whole.example)
    assert found["target"].sums["test/loss"].min() > 0
    assert len(found["source"].example) == 3
    assert (scores.read(one.folder / EVALUATED_FILE)["target"].example == found["target"].example).all()


def test_saved_keeps_the_test_examples_of_a_task_that_has_no_more(tmp_path: Path) -> None:
    asked = config("task=mnist", "adapter=none", f"cache={tmp_path}")
    record = SimpleNamespace(trial_id=resolve(asked).id)
    assert saved(tmp_path, record, asked, 5000).trial.task == asked.task  # type: ignore[arg-type]
