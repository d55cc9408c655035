"""What cannot be answered is refused in words that say what to do: in Python, on the command line, on the dashboard."""

import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import anyio
import numpy as np
import pandas as pd
import pytest
from simulate import grid, write_sweep
from starlette.testclient import TestClient

import analysis
from analysis.__main__ import COMMAND, main
from analysis.errors import BadRequestError
from analysis.report import serve, workspace
from analysis.report.live import Live
from analysis.report.watch import watch
from analysis.sources.wandb_files import run_files
from analysis.statistics.effects import effects
from analysis.statistics.levels import select, swept


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of which no trial has finished."""
    trials = grid(range(2), (), rank=[1, 4])
    return write_sweep(
        tmp_path_factory.mktemp("sweeps") / "lost", trials, np.random.default_rng(0), diverge=lambda trial: True
    )


def frame_of(**columns: object) -> analysis.Results:
    """Results with a loss for each row of these columns."""
    table = pd.DataFrame(columns)
    return analysis.from_frame(table.assign(loss=0.5 + 0.01 * np.arange(len(table)) ** 1.5), metric="loss")


def test_main_of_an_interrupted_command_is_130_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMAND, "export", interrupted)
    assert main(["export", "x"]) == 130


def test_main_leaves_a_closed_output_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setitem(COMMAND, "export", closed)
    with pytest.raises(BrokenPipeError):
        main(["export", "x"])


@pytest.mark.parametrize(
    ("source", "seconds", "says"),
    [
        ("here", "0", "--watch 0: the time between two looks must be above 0 seconds"),
        ("wandb:a/b", "1", "--watch needs a folder on this machine; wandb:a/b is none"),
    ],
)
def test_main_watches_folders_from_time_to_time(
    source: str, seconds: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([source, "--watch", seconds]) == 2
    assert capsys.readouterr().err == f"error: {says}\n"


def test_watch_waits_for_a_sweep_that_has_not_finished_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([True, False])
    watch([str(tmp_path)], None, 1e-3, lambda: next(looks))
    assert f"waiting: no finished trial in {tmp_path}" in capsys.readouterr().out


def test_main_says_what_the_dashboard_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "analysis.report.serve")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "error: the dashboard needs uvicorn: pip install 'lora-sweep[serve]'\n"


def test_serve_needs_a_folder_and_a_free_port(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"there is no folder .*gone: name the one that holds the sweeps"):
        serve.serve(tmp_path / "gone", 0)
    with socket.create_server((serve.HOST, 0)) as taken, pytest.raises(BadRequestError, match="choose another: --port"):
        serve.serve(tmp_path, taken.getsockname()[1])


def test_serve_says_why_there_is_no_verdict_yet_and_keeps_few_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "r1-01234567").mkdir(parents=True)
    monkeypatch.setattr(serve, "MOST_KEPT", 1)
    client = TestClient(serve.application(tmp_path), base_url=f"http://{serve.HOST}:8765")
    for name in ("a", "b", "a"):
        said = client.get(f"/sweeps/{name}/verdict").text
        assert f"<p>Nothing can be said yet: no finished trial in {tmp_path / name}" in said


def test_live_tells_of_trials_of_which_nothing_is_known_and_then_that_they_are_gone(tmp_path: Path) -> None:
    (tmp_path / "s" / "r1-01234567").mkdir(parents=True)
    house = serve._House(tmp_path)
    view = Live(tmp_path / "s", None)

    async def told() -> list[str]:
        stream = house._told([view])
        first = await anext(stream)
        shutil.rmtree(tmp_path / "s")
        await anext(stream)  # a sign of life
        return [first, await anext(stream)]

    first, last = anyio.run(told)
    assert '"state":"not started"' in first
    assert '"factors":[]' in first
    assert last == 'data: {"sweep":"s","gone":"No such file or directory"}\n\n'


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of wandb-workspaces
def test_plot_and_workspace_of_a_sweep_without_a_finished_trial_say_so(diverged: Path) -> None:
    results = analysis.load(diverged)
    for ask in (lambda: results.plot("response"), lambda: workspace.build(results, "me", "mine")):
        with pytest.raises(BadRequestError, match=r"no finished trial of transformer has a metric; 4 trials did not"):
            ask()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_workspace_says_what_it_needs_and_what_the_server_answers(
    rank_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ValueError("no such project")

    with pytest.raises(BadRequestError, match="W&B did not save the workspace: no such project"):
        workspace.save(SimpleNamespace(save=refuse))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(BadRequestError, match="a workspace needs one more package: pip install wandb-workspaces"):
        workspace.build(analysis.load(rank_sweep), "me", "mine")


def test_results_without_any_trial_are_refused(diverged: Path) -> None:
    results = analysis.load(diverged)
    with pytest.raises(BadRequestError, match="no trial is left"):
        results.without(*results.trials["trial_id"])


def test_report_of_a_frame_needs_a_place() -> None:
    with pytest.raises(BadRequestError, match="these trials have no folder on this machine: say where with --out"):
        frame_of(r=[1, 4] * 3, seed=[0, 0, 1, 1, 2, 2]).report()


def test_questions_need_a_setting() -> None:
    with pytest.raises(BadRequestError, match="the trials of frame carry no configuration"):
        frame_of(seed=[0, 1, 2]).plot("response")


def test_select_of_no_level_is_refused() -> None:
    trials = frame_of(r=[1, 1, 4, 4], seed=[0, 1, 0, 1]).trials
    with pytest.raises(BadRequestError, match=r"no trial has config\.r="):
        select(trials, {"config.r": []})


def test_effects_of_levels_that_share_no_seed_cannot_be_told_from_the_seeds() -> None:
    seeds = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    results = frame_of(r=[1] * 6 + [4] * 6, method=["a", "b"] * 6, seed=seeds)
    with pytest.raises(BadRequestError, match=r"the levels of config.r share no seed"):
        effects(results.trials, "metric/loss", ["config.r", "config.method"])


def test_swept_is_the_kind_where_nothing_else_differs(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "kinds", grid(range(2), ("full", "none"), rank=[8]), np.random.default_rng(0))
    assert swept(analysis.load(sweep).trials) == ["adapter.kind"]


def test_run_files_below_a_folder_that_is_gone_are_none(tmp_path: Path) -> None:
    assert run_files(tmp_path / "gone") == []
