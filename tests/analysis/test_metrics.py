"""What a metric means comes from the records, wherever it is shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.columns import describe
from analysis.statistics.cells import observe
from analysis.statistics.compare import against, compare
from analysis.statistics.notes import info
from analysis.statistics.questions import questions
from analysis.tables.render import render
from analysis.tables.table import build
from sweep.metrics import OURS, Metric, to_plain

ECE = Metric("eval/ece", "calibration error", "%", "lower", "eval/loss", "end")


def with_ece(folder: Path, metrics: dict[str, Any]) -> Path:
    """A sweep whose records hold ``eval/ece``, lower for the higher rank, and say ``metrics`` of it."""
    write_sweep(folder, grid(range(5), (), rank=[1, 4], lr=[1e-3, 1e-2]), np.random.default_rng(0), points=2)
    for path in folder.glob("*/record.json"):
        record = json.loads(path.read_text())
        trial = record["trial"]
        record["result"]["eval/ece"] = 1 / trial["adapter"]["rank"] + 0.01 * trial["seed"] * trial["adapter"]["rank"]
        path.write_text(json.dumps(record | {"metrics": metrics}))
    return folder


def test_metrics_of_a_record_give_label_unit_direction_and_tuning(tmp_path: Path):
    folder = with_ece(tmp_path / "s", to_plain([OURS["eval/loss"], ECE]))
    for sweep in (analysis.load(folder), analysis.load(folder)):  # the second time from the cache
        assert sweep.metrics["eval/ece"] == ECE
        table = build(sweep, "adapter.rank", None, "eval/ece", ("1",))
        assert table.caption.startswith("calibration error (%) (eval/ece, lower is better)")
        assert [row for (row, _), entry in table.entries.items() if entry.best] == ["4"]
        assert table.notes[0].startswith("Each cell is at its own best learning rate by eval/loss")
        [question], _ = questions(sweep)
        assert (question.primary, question.secondary[0]) == ("eval/loss", "eval/ece")


def test_metrics_without_a_direction_are_neither_tuned_nor_bold_and_say_so(tmp_path: Path):
    sweep = analysis.load(with_ece(tmp_path / "s", {}))
    observations = observe(sweep.trials, ("adapter.rank",), "eval/ece", sweep.metrics)
    assert observations.rates == {}
    assert info("no direction", metric="eval/ece") in observations.notes
    [only] = compare(observations, against(observations, ("1",)))
    assert only.verdict == "different"
    text = render(build(sweep, "adapter.rank", None, "eval/ece"), "md")
    assert "**" not in text
    assert "- Whether a low or a high eval/ece is better is not known: no cell is in bold" in text


@pytest.mark.parametrize("metrics", [[], {"eval/ece": 3}, {"eval/ece": {"label": "x", "better": "up"}}])
def test_metrics_that_are_malformed_are_a_problem_of_their_record(metrics: Any, tmp_path: Path):
    folder = with_ece(tmp_path / "s", {})
    path = folder / "trial_00000" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": metrics or [1]}))
    [problem] = analysis.load(folder).problems
    assert problem.startswith(f"{path} is not a record (metrics")


def test_metrics_that_contradict_each_other_are_a_problem(tmp_path: Path):
    folder = with_ece(tmp_path / "s", to_plain([ECE]))
    path = folder / "trial_00001" / "record.json"
    other = {"eval/ece": {"label": "expected cost", "better": "higher"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": other}))
    sweep = analysis.load(folder)
    assert sweep.metrics["eval/ece"] == ECE
    assert sweep.problems == (
        "trial_00001 describes eval/ece differently from the trials before it, whose description is used",
    )


def test_primary_metric_is_the_one_that_tunes_most_others_where_there_is_no_loss(tmp_path: Path):
    bleu = Metric("eval/bleu", "BLEU", better="higher", tuned_on="eval/bleu")
    chrf = Metric("eval/chrf", "chrF", better="higher", tuned_on="eval/bleu")
    sweep = analysis.load(with_ece(tmp_path / "s", to_plain([chrf, bleu])))
    renamed = sweep.trials.drop(columns=[name for name in sweep.trials if name.startswith("eval/")])
    trials = renamed.assign(**{"eval/chrf": 1.0, "eval/bleu": 2.0})
    [question], _ = questions(analysis.Sweep(sweep.name, trials, sweep.history, metrics=sweep.metrics))
    assert question.primary == "eval/bleu"


def test_describe_guesses_no_direction_from_a_name():
    assert describe("eval/my_loss").better is None
    assert describe("eval/wrong_3").title == "errors on 3 (images)"
    assert describe("adapter.use_dora").label == "use dora"
