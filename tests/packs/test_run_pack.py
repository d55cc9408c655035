"""What a pack leaves: figures of the test examples, and the step that was kept."""

from functools import partial
from pathlib import Path

import pytest
import torch

from sweep.packs.base import load_base
from sweep.packs.run_pack import Outcome, run_pack
from sweep.store.store import Store
from sweep.training import evaluate
from sweep.training.evaluate import Measured
from tests.support.commands import TOY, resolved

SMALL = (*TOY, "task.held_out=40", "task.samples=60")


def left_by(*trials: str, folder: Path) -> Outcome:
    pack = resolved(*trials, common=SMALL, cache=folder)
    task = pack[0].task.build(folder)
    base = load_base(pack[0].task, pack[0].data, task, folder, torch.device("cpu"))
    record_of = partial(Store(folder, None).record_of, environment={})
    return run_pack(pack, task, base, record_of, lambda step, rows: None, lambda step: None)


def test_run_pack_tests_other_examples_than_it_evaluates(tmp_path: Path) -> None:
    records, _, _, scores = left_by("task.validation=20 seed=0", "task.validation=20 seed=1", folder=tmp_path)
    assert list(scores) == [0, 1]
    for position, record in enumerate(records):
        assert record.result["test/loss"] != record.result["eval/loss"]
        assert record.result["test/base_loss"] != record.result["eval/base_loss"]
        own = scores[position]["target"]
        assert len(own.weight) == 40
        assert own.sums["test/loss"].mean() == pytest.approx(record.result["test/loss"], rel=1e-5)
        assert set(record.result) <= set(record.metrics)


def test_run_pack_without_validation_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    measure = evaluate.measure

    def watched(*arguments: object) -> Measured:
        found = measure(*arguments)  # type: ignore[arg-type]
        measured.append(len(next(iter(found.values.values()))))
        return found

    monkeypatch.setattr(evaluate, "measure", watched)
    records, _, _, scores = left_by("task.validation=0 seed=0", "task.validation=0 seed=1", folder=tmp_path)
    assert measured == [1, 1, 2, 2, 2, 2]  # two domains of the base, and of the pack after steps 10 and 20
    for position, record in enumerate(records):
        for name in ("loss", "source_loss", "base_loss"):
            assert record.result[f"test/{name}"] == record.result[f"eval/{name}"]
        assert scores[position]["source"].sums["test/source_loss"].mean() == pytest.approx(
            record.result["eval/source_loss"], rel=1e-5
        )


def test_untouched_base_is_tested_as_the_base(tmp_path: Path) -> None:
    records, _, _, scores = left_by("adapter=none seed=0", "adapter=none seed=1", folder=tmp_path)
    for position, record in enumerate(records):
        assert record.result["test/loss"] == record.result["test/base_loss"]
        assert len(scores[position]["target"].weight) == 40


def test_record_says_which_step_was_kept_and_holds_its_figures(tmp_path: Path) -> None:
    common = "task.noise=3.0 training.steps=60 training.eval_every=5 optimizer.lr=0.1"
    (last,), *_ = left_by(common, folder=tmp_path)
    (best,), folded, *_ = left_by(f"{common} training.keep=best", folder=tmp_path)
    assert best.trial_id != last.trial_id
    assert "train/kept_step" not in last.result
    assert best.result["train/kept_step"] % 5 == 0
    assert best.result["train/kept_step"] < 60
    assert best.result["eval/loss"] < last.result["eval/loss"]
    [again] = evaluate.evaluate_both(folded, resolved(common, common=SMALL, cache=tmp_path)[0].task.build(tmp_path))
    assert again["eval/loss"] == best.result["eval/loss"]
