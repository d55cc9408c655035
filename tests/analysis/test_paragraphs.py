"""Sentences of the report and of tables in the cases that few sweeps have."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.report import report
from analysis.report.answer import Answer, add_comparison
from analysis.report.paragraphs import certainty, findings
from analysis.statistics import crossed
from analysis.statistics.intervals import Unpaired, unpaired
from analysis.statistics.questions import Question, questions
from analysis.tables.numbers import short_number
from analysis.tables.wording import dependence_text


def question_of(results: analysis.Results) -> Question:
    [question], _ = questions(results)
    return question


def test_findings_of_a_metric_without_a_direction_name_no_best_cell(tmp_path: Path) -> None:
    rows = [(r, seed, 0.1 * r + seed) for r in (1, 4) for seed in range(3)]
    pd.DataFrame(rows, columns=["r", "seed", "score"]).to_csv(tmp_path / "r.csv", index=False)
    assert findings(question_of(analysis.load(tmp_path / "r.csv", metric="score")), {}, None) == ""


def test_findings_of_one_seed_are_chosen_and_measured_on_it(tmp_path: Path) -> None:
    trials = grid(range(1), (), rank=[1, 4], lr=[1e-3, 1e-2])
    results = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0)))
    said = findings(question_of(results), {}, None)
    assert "which both halves of the seeds chose" not in said
    assert said.endswith("; so few seeds give no ranking.")
    assert "the rate was chosen on the reported trial itself in 2 cells with one seed" in str(
        results.table("adapter.rank")
    )


def test_findings_on_the_kind_speak_of_full_fine_tuning_alone(tmp_path: Path) -> None:
    trials = grid(range(3), ("full",), rank=[8])
    question = question_of(analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0))))
    answer = Answer(question)
    add_comparison(answer, "adapter.kind")
    assert "Against" not in findings(question, answer.comparisons, None)


def test_certainty_of_cells_without_a_seed_in_common_is_none() -> None:
    frame = pd.DataFrame({"r": [1, 1, 1, 4, 4, 4], "seed": range(6), "loss": [0.1, 0.2, 0.3, 0.2, 0.3, 0.5]})
    answer = Answer(question_of(analysis.from_frame(frame, metric="loss")))
    add_comparison(answer, "config.r")
    assert certainty(answer.comparisons) == (
        "The cells share no seed, so nothing is paired, and nothing can be concluded."
    )


def test_answer_names_each_gap_once(rank_sweep: Path) -> None:
    answer = Answer(question_of(analysis.load(rank_sweep)))
    for _ in range(2):
        assert answer.attempt(answer.question.observe, ("adapter.nothing",)) is None
    assert len(answer.gaps) == 1


def test_dependence_text_of_many_levels_shows_the_two_that_differ_most() -> None:
    levels = tuple((str(rank), 0.01 * rank) for rank in (1, 2, 3, 4, -5))
    item = SimpleNamespace(dependence=SimpleNamespace(factor="adapter.rank", differences=levels))
    assert dependence_text(item) == "depends on rank: +0.04 at 4, −0.05 at -5"  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "text"), [(9.38e23, "9.4e23"), (1e-12, "1.0e-12"), (9.0, "9.0"), (0.0, "0.0")])
def test_short_number_has_two_digits(value: float, text: str) -> None:
    assert short_number(value) == text


def test_unpaired_of_means_without_spread_has_no_width() -> None:
    assert unpaired([1.0, 1.0], [2.0, 2.0]) == Unpaired(-1.0, -1.0, -1.0)


def test_tested_for_seeds_and_examples_of_one_seed_is_as_over_seeds() -> None:
    found = crossed.tested(np.array([0.5]), np.array([[0.4, 0.6]]), "both")
    assert (found.n, found.mean, np.isnan(found.p)) == (1, 0.5, True)


def test_table_of_many_cells_compares_settings_with_those_of_the_first() -> None:
    frame = pd.DataFrame([(r, "a" if r else "b", seed, 0.1 * r + 0.01 * seed) for r in range(61) for seed in range(2)])
    results = analysis.from_frame(frame.set_axis(["r", "method", "seed", "loss"], axis=1), metric="loss")
    assert "r cells (0, 1, 2, 3 and 57 more) also differ in config.method (b, a)" in str(results.table("r"))


def test_table_by_task_compares_tasks_whose_own_settings_differ(tmp_path: Path) -> None:
    trials = [one for task in ("mnist", "toy") for one in grid(range(3), (), rank=[8], task=[task])]
    for trial in trials:
        trial["task"]["data"]["length"] = len(trial["task"]["name"])
    results = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0)))
    assert list(results.table("task.name", baseline="mnist").frame["verdict"].dropna()) == ["not distinguishable"]


def test_table_by_a_setting_of_the_task_compares_data_that_follow_from_it(tmp_path: Path) -> None:
    trials = [one for _ in range(2) for one in grid(range(3), (), rank=[8])]
    for place, trial in enumerate(trials):
        trial["data"] = f"text:{place // 3}"
        trial["task"] = trial["task"] | {"context": 8 + place // 3}
    results = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0)))
    assert list(results.table("task.context", baseline=8).frame["verdict"].dropna()) == ["not distinguishable"]


def test_shown_has_the_name_of_its_files(rank_sweep: Path) -> None:
    results = analysis.load(rank_sweep)
    assert results.compare("adapter.rank", baseline=4).name == "comparisons_eval-loss_adapter.rank"
    assert results.table("adapter.rank").name == "table_eval-loss_adapter.rank"


def test_plot_of_results_without_a_history_offers_no_curves() -> None:
    frame = pd.DataFrame(
        [(r, seed, 0.1 * r + seed) for r in (1, 4) for seed in range(2)], columns=["r", "seed", "loss"]
    )
    with pytest.raises(BadRequestError) as refused:
        analysis.from_frame(frame, metric="loss").plot("nothing")
    assert "response" in str(refused.value)
    assert "curves" not in str(refused.value)


def test_plot_of_curves_leaves_single_seeds_out_where_they_are_many(
    rank_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = analysis.load(rank_sweep)

    def seeds() -> int:
        [axis] = results.plot("curves_eval-loss").axes
        return sum(line.get_gid() == "seed" for line in axis.lines)

    assert seeds() > 0
    monkeypatch.setattr("analysis.figures.plots.MOST_SEED_LINES", 4)
    assert seeds() == 0


@pytest.mark.usefixtures("one_figure")
def test_page_folds_tables_of_counts_together(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", grid(range(2), (), rank=[1, 4]), np.random.default_rng(0))
    for path in sweep.glob("*/record.json"):
        values = json.loads(path.read_text())
        values["result"] |= {f"eval/wrong_{digit}": 3.0 + digit for digit in range(2)}
        path.write_text(json.dumps(values))
    page = report.as_page(analysis.load(sweep))
    assert page.count("<summary>2 tables of counts</summary>") == 1
