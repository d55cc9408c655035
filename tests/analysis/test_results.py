"""The public Python surface: each docstring's example runs, and answers show themselves wherever they are read."""

import doctest
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis import results as module
from analysis.errors import BadRequestError


@pytest.fixture(scope="module")
def results(rank_sweep: Path) -> analysis.Results:
    return analysis.load(rank_sweep)


def test_every_docstring_example_is_true(rank_sweep: Path, tmp_path: Path) -> None:
    given = {"results": analysis.load(rank_sweep), "folder": rank_sweep, "place": tmp_path}
    done = doctest.testmod(module, extraglobs=given, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert done.failed == 0
    assert done.attempted >= 5


def test_table_is_text_html_latex_and_a_frame(results: analysis.Results) -> None:
    shown = results.table("adapter.rank", "adapter.targets", baseline=(4, "all_linear"))
    assert str(shown) == repr(shown) == shown.markdown.removesuffix("\n")
    assert shown._repr_html_().startswith("<table>")
    assert "\\toprule" in shown.latex
    frame = shown.frame
    assert len(frame) == 8
    cell = frame[(frame["adapter.rank"] == "1") & (frame["adapter.targets"] == "attention")].iloc[0]
    trials = results.trials
    kept = trials[(trials["adapter.rank"] == 1) & (trials["adapter.targets"] == "attention")]
    by_seed = kept.groupby("seed")["eval/loss"].mean()
    assert cell["mean"] == pytest.approx(by_seed.mean())
    assert cell["std"] == pytest.approx(by_seed.std())
    assert (cell["n"], cell["verdict"]) == (5, "worse")
    assert cell["p"] < 0.05
    assert frame["verdict"].isna().sum() == 1  # the baseline itself


def test_table_frame_has_numbers_for_levels_that_are_numbers(results: analysis.Results) -> None:
    frame = results.filter({"adapter.kind": "lora"}).table("adapter.rank").frame
    assert list(frame["adapter.rank"]) == [1, 2, 4]
    assert frame["p"].isna().all()


def test_filter_keeps_the_history_of_what_it_keeps(results: analysis.Results) -> None:
    kept = results.filter({"adapter.rank": 2, "adapter.kind": "lora"})
    assert set(kept.history["trial_id"]) == set(kept.trials["trial_id"])
    assert set(kept.trials["adapter.rank"]) == {2}
    assert len(results.trials) == 70
    with pytest.raises(BadRequestError, match=r"unknown level of adapter\.rank"):
        results.filter({"adapter.rank": 3})


def test_without_takes_out_trials_by_name(results: analysis.Results) -> None:
    gone = results.without("trial_00003", "ranks-trial_00004")
    assert set(results.trials["trial_id"]) - set(gone.trials["trial_id"]) == {"ranks-trial_00003", "ranks-trial_00004"}
    with pytest.raises(BadRequestError, match="unknown trial 'trial_0003'; did you mean trial_000"):
        results.without("trial_0003")


def test_load_gives_the_frames_that_it_gave(rank_sweep: Path) -> None:
    loaded = analysis.load(rank_sweep)
    assert isinstance(loaded, analysis.Sweep)
    assert isinstance(loaded.trials, pd.DataFrame)
    assert {"trial_id", "step", "eval/loss"} <= set(loaded.history)
