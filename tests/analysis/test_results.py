"""The public Python surface: each docstring's example runs, and answers show themselves wherever they are read."""

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulate import grid, write_sweep

import analysis
from analysis import results as module
from analysis.__main__ import main
from analysis.errors import BadRequestError
from analysis.statistics.cells import observe
from analysis.statistics.compare import compare
from analysis.statistics.effects import effects


@pytest.fixture(scope="module")
def results(rank_sweep: Path) -> analysis.Results:
    return analysis.load(rank_sweep)


@pytest.mark.usefixtures("one_figure")
def test_every_docstring_example_is_true(rank_sweep: Path, tmp_path: Path) -> None:
    given = {"results": analysis.load(rank_sweep), "folder": rank_sweep, "place": tmp_path}
    done = doctest.testmod(module, extraglobs=given, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert done.failed == 0
    assert done.attempted >= 5


def test_table_is_text_html_latex_and_a_frame(results: analysis.Results) -> None:
    shown = results.table("adapter.rank", "adapter.targets", baseline=(4, "all_linear"))
    assert str(shown) == repr(shown) == shown.markdown.removesuffix("\n")
    assert shown._repr_html_().startswith("<table")
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


def test_compare_is_text_html_latex_and_a_frame(
    results: analysis.Results, rank_sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"adapter.kind": "lora"}
    shown = results.compare("adapter.init", "kaiming", where=where)
    asked = ["--factor", "adapter.init", "--baseline", "kaiming", "--where", "adapter.kind=lora"]
    assert main(["compare", str(rank_sweep), *asked]) == 0
    assert capsys.readouterr().out == f"{shown}\n"
    assert "<table" in shown._repr_html_()
    assert "\\toprule" in shown.latex
    [row] = shown.frame.to_dict("records")
    seen = observe(results.filter(where).trials, ("adapter.init",), "eval/loss")
    [expected] = compare(seen, [(("pissa",), ("kaiming",))])
    assert row["adapter.init"] == "pissa"
    assert (row["difference"], row["p"], row["verdict"]) == (
        pytest.approx(expected.difference.mean),
        pytest.approx(expected.p_holm),
        expected.verdict,
    )


def test_effects_is_text_html_and_a_frame(results: analysis.Results) -> None:
    shown = results.effects(factors=["adapter.rank", "adapter.targets"])
    assert str(shown).startswith("| source")
    assert "<table" in shown._repr_html_()
    expected = effects(results.trials, "eval/loss", ["adapter.rank", "adapter.targets"])
    assert list(shown.frame["share"]) == [effect.share for effect in expected.effects]


def test_plot_is_a_figure_that_a_notebook_shows(results: analysis.Results) -> None:
    figure = results.plot("response", rows="adapter.init", metric="eval/source_loss")
    assert figure._repr_png_().startswith(b"\x89PNG")
    [axis] = figure.axes
    assert axis.get_xlabel() == "init"
    assert axis.get_ylabel().startswith("source loss (forgetting)")
    with pytest.raises(BadRequestError, match="unknown kind of plot 'reponse'; did you mean response"):
        results.plot("reponse")


def test_plot_is_of_one_task(rank_sweep: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "o", grid(rank=[1], task=["mnist"], references=()), np.random.default_rng(0))
    both = analysis.load([rank_sweep, other])
    with pytest.raises(BadRequestError, match="one plot is of one task, not of mnist, transformer: filter"):
        both.plot("response")
    assert both.filter({"task.name": "transformer"}).plot("forest_rank").axes


def test_repr_counts_the_trials(results: analysis.Results) -> None:
    assert repr(results) == "ranks: 70 trials, 70 finished; .trials and .history are pandas frames"


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
