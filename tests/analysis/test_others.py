"""Results that we did not train: frames and files, W&B runs of a plain script, and what evaluation harnesses leave."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.__main__ import main
from analysis.errors import BadRequestError
from analysis.sources.folder_names import settings_in

SEEDS = range(5)


@pytest.fixture
def frame() -> pd.DataFrame:
    """r × method × seed with a clear effect of r, and columns that are no settings."""
    rng = np.random.default_rng(0)
    rows = [
        (r, method, seed, 0.5 + 0.1 / r + 0.01 * seed + rng.normal(0, 0.002), rng.random(), f"run-{r}{method}{seed}")
        for r in (1, 4)
        for method in ("a", "b")
        for seed in SEEDS
    ]
    return pd.DataFrame(rows, columns=["r", "method", "seed", "loss", "runtime", "run_name"])


def test_from_frame_gives_means_and_paired_verdicts(frame: pd.DataFrame) -> None:
    found = analysis.from_frame(frame, metric="loss").table("r", "method", baseline=1).frame
    means = frame.groupby(["r", "method"])["loss"].mean()
    for row in found.itertuples():
        assert row.mean == pytest.approx(means[row.r, row.method])
        assert row.n == 5
    assert list(found["verdict"].dropna()) == ["better", "better"]


def test_load_keeps_the_metric_that_was_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    frame.assign(**{"eval/loss": frame["runtime"]}).to_csv(path, index=False)
    named = analysis.load(path, metric="loss").table("r").frame
    assert set(named["metric"]) == {"loss"}


def test_from_frame_says_what_it_does_not_take_for_a_setting(frame: pd.DataFrame) -> None:
    results = analysis.from_frame(frame, metric="loss")
    assert {"config.r", "config.method", "metric/loss", "metric/runtime"} <= set(results.trials)
    assert "config.run_name" not in results.trials
    [problem] = results.problems
    assert problem.endswith("runtime, run_name")


def test_from_frame_refuses_a_verdict_where_another_column_differs_too(frame: pd.DataFrame) -> None:
    confounded = frame.assign(steps=frame["r"] * 100)
    shown = analysis.from_frame(confounded, metric="loss").table("r", baseline=1)
    assert "also differ in config.steps (100, 400)" in str(shown)
    assert set(shown.frame["verdict"].dropna()) == {"refused"}
    fair = analysis.from_frame(confounded, metric="loss", factors=["r", "method"]).table("r", baseline=1)
    assert set(fair.frame["verdict"].dropna()) == {"better"}


def test_from_frame_without_seeds_gives_no_verdict_and_says_so(frame: pd.DataFrame) -> None:
    shown = analysis.from_frame(frame.drop(columns="seed"), metric="loss").table("r", baseline=1)
    assert set(shown.frame["verdict"].dropna()) == {"no shared seed"}
    assert "no seeds are known" in str(shown)
    assert list(shown.frame["n"]) == [10, 10]


def test_from_frame_takes_no_seeds_where_none_is_said(frame: pd.DataFrame) -> None:
    results = analysis.from_frame(frame, metric="loss", seed=None)
    assert "config.seed" in results.trials
    assert set(results.table("r", baseline=1).frame["verdict"].dropna()) == {"no shared seed"}


def test_from_frame_takes_the_direction_that_is_told(frame: pd.DataFrame) -> None:
    higher = analysis.from_frame(frame, metric="loss", lower_is_better=False).table("r", baseline=1).frame
    assert list(higher["verdict"].dropna()) == ["worse"]


def test_from_frame_calls_an_infinite_value_diverged_and_counts_a_missing_one(frame: pd.DataFrame) -> None:
    frame.loc[0, "loss"], frame.loc[1, "loss"] = np.inf, np.nan
    results = analysis.from_frame(frame, metric="loss")
    assert results.counts["diverged"] == 1
    assert "Left out: 1 finished trial without metric/loss." in str(results.table("r"))


@pytest.mark.parametrize(
    ("change", "asked", "says"),
    [
        (lambda f: f, {"metric": "los"}, "unknown column 'los'; did you mean loss"),
        (lambda f: f, {"metric": "loss", "seed": "sed"}, "unknown column of seeds 'sed'; did you mean seed"),
        (lambda f: f, {"metric": "loss", "factors": ["rank"]}, "unknown column 'rank'"),
        (lambda f: f, {"metric": "method"}, "the metric method is 'a' in rows 0, 1, 2 and 17 more, which is no number"),
        (lambda f: f.iloc[:0], {"metric": "loss"}, "the table has no rows"),
        (lambda f: f.assign(seed=[None, *f["seed"][1:]]), {"metric": "loss"}, "seed is missing in row 0"),
        (lambda f: f.assign(r=["1", *f["r"][1:]]), {"metric": "loss"}, "the column r holds both a text"),
        (lambda f: pd.concat([f, f.assign(loss=0.0)]), {"metric": "loss"}, "have the same settings but another loss"),
        (lambda f: f.rename(columns={"method": "r"}), {"metric": "loss"}, "two columns of the name r"),
    ],
    ids=["metric", "seed", "factor", "text", "empty", "missing seed", "mixed", "contradiction", "two columns"],
)
def test_from_frame_names_what_is_wrong_in_one_message(
    change: Callable[[pd.DataFrame], pd.DataFrame], asked: dict, says: str, frame: pd.DataFrame
) -> None:
    with pytest.raises(BadRequestError, match=says):
        analysis.from_frame(change(frame), **asked)


def test_table_frame_keeps_a_column_of_theirs_apart_from_ours(frame: pd.DataFrame) -> None:
    theirs = analysis.from_frame(frame.rename(columns={"r": "mean"}), metric="loss").table("mean").frame
    assert list(theirs["config.mean"]) == [1, 4]
    assert theirs["mean"].between(0.5, 0.7).all()


def test_from_frame_counts_repeated_rows_once(frame: pd.DataFrame) -> None:
    results = analysis.from_frame(pd.concat([frame, frame]), metric="loss")
    assert len(results.trials) == len(frame)
    assert "20 rows equal to an earlier one, counted once" in results.problems


def test_from_frame_takes_whatever_a_cell_may_hold(frame: pd.DataFrame) -> None:
    lists = [["q", "v"] for _ in range(len(frame))]
    odd = frame.assign(when=pd.Timestamp("2026-01-01"), layers=lists, opt=[{"lr": 1e-3}] * len(frame), big=1 << 80)
    odd["method"] = pd.Categorical(odd["method"])
    trials = analysis.from_frame(odd, metric="loss").trials
    assert set(trials["config.layers"]) == {"q+v"}
    assert set(trials["config.opt.lr"]) == {1e-3}
    assert set(trials["config.big"]) == {str(1 << 80)}


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_main_reads_a_file_as_from_frame_reads_the_frame(
    ending: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"frame.{ending}"
    write = {"csv": frame.to_csv, "parquet": frame.to_parquet, "jsonl": frame.to_json}[ending]
    write(path, **({"orient": "records", "lines": True} if ending == "jsonl" else {"index": False}))
    asked = ["--rows", "r", "--columns", "method", "--metric", "loss", "--seed", "seed", "--where", "r=1,4"]
    assert main(["table", str(path), *asked]) == 0
    where = {"r": [1, 4]}
    expected = analysis.from_frame(frame, metric="loss").table("r", "method", where=where).markdown
    assert capsys.readouterr().out == expected
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]


def test_load_joins_files_of_one_name_and_counts_each_trial(frame: pd.DataFrame, tmp_path: Path) -> None:
    paths = [tmp_path / place / "results.csv" for place in ("a", "b")]
    for path, method in zip(paths, ("a", "b"), strict=True):
        path.parent.mkdir()
        frame[frame["method"] == method].to_csv(path, index=False)
    assert len(analysis.load(paths, metric="loss").trials) == len(frame)
    assert "10 trials are in several sources" in " ".join(analysis.load([*paths, paths[0]], metric="loss").problems)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is no table in the format .csv"),
        ("a.parquet", b"PAR1 not", "is no table in the format .parquet"),
        ("a.jsonl", b"{", "is no table in the format .jsonl"),
        ("missing.csv", None, "cannot be read: No such file"),
    ],
)
def test_main_says_which_file_it_cannot_read(
    name: str, content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["table", str(tmp_path / name), "--rows", "r", "--metric", "loss"]) == 2
    assert says in capsys.readouterr().err


def test_from_frame_of_scores_generalises_to_examples(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    hardness = rng.normal(0, 0.5, 200)
    rows = [
        (r, seed, f"q{place}", float(rng.random() < 0.5 + 0.2 * (r == 4) + 0.2 * np.tanh(hard)), "algebra")
        for r in (1, 4)
        for seed in SEEDS
        for place, hard in enumerate(hardness)
    ]
    scores = pd.DataFrame(rows, columns=["r", "seed", "question", "correct", "subject"])
    results = analysis.from_frame(scores, metric="correct", example="question", lower_is_better=False)
    assert len(results.trials) == 10
    shown = results.table("r", baseline=1)
    assert "200 examples" in str(shown)
    assert list(shown.frame["verdict"].dropna()) == ["better"]
    both, seeds = (results.table("r", baseline=1, generalise=to).frame["p"].dropna().item() for to in ("both", "seeds"))
    assert both >= seeds


def write_samples(folder: Path, accuracy: float, rng: np.random.Generator) -> None:
    """What ``lm_eval --log_samples`` leaves of one model: samples of a task, and its results."""
    folder.mkdir(parents=True)
    rows = [
        {
            "doc_id": place,
            "doc": {"question": f"{place}?"},
            "filter": "none",
            "metrics": ["acc"],
            "doc_hash": f"{place:064x}",
            "acc": float(rng.random() < accuracy),
        }
        for place in range(80)
    ]
    date = "2026-01-02T03-04-05.678901"
    (folder / f"samples_arc_easy_{date}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"results": {}, "higher_is_better": {"arc_easy": {"acc": True}}}
    (folder / f"results_{date}.json").write_text(json.dumps(results))


def test_load_reads_samples_of_the_evaluation_harness(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for r, accuracy in ((1, 0.4), (8, 0.8)):
        for seed in range(3):
            write_samples(tmp_path / f"r{r}-seed{seed}", accuracy, rng)
    (tmp_path / "r8-seed3").mkdir()
    (tmp_path / "r8-seed3" / "samples_arc_easy_2026-01-02T03-04-05.678901.jsonl").write_text("[]\n")
    results = analysis.load(tmp_path)
    assert len(results.trials) == 6
    assert any("does not hold samples" in problem for problem in results.problems)
    shown = results.table("r", metric="acc", baseline=1)
    assert list(shown.frame["verdict"].dropna()) == ["better"]
    assert "80 " in str(shown)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("r8-seed0", {"r": 8, "seed": 0}),
        ("rank=8,seed=0", {"rank": 8, "seed": 0}),
        ("lr1e-3/seed_0", {"lr": 1e-3, "seed": 0}),
        ("pissa/r4", {"r": 4}),
        ("best-model", {}),
    ],
)
def test_settings_in_reads_what_folder_names_say(path: str, found: dict) -> None:
    assert settings_in(path) == found


def test_load_reads_the_scores_of_single_examples_without_their_results(tmp_path: Path) -> None:
    for r in (1, 8):
        write_samples(tmp_path / f"r{r}", 0.5, np.random.default_rng(r))
    [results] = (tmp_path / "r1").glob("results_*")
    results.unlink()
    for samples in tmp_path.glob("*/samples_*"):
        lines = [
            json.loads(line) | {"metrics": ["acc", "words"], "words": "a b"}
            for line in samples.read_text().splitlines()
        ]
        samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "r9").mkdir()
    empty = tmp_path / "r9" / samples.name
    empty.write_text(json.dumps({"doc_id": 0, "metrics": ["words"], "words": "a b"}))
    found = analysis.load(tmp_path)
    assert len(found.trials) == 2
    assert "metric/words" not in found.trials
    assert f"{empty} is left out: none of its metrics is a number of a single example" in found.problems


def test_scores_that_cannot_be_kept_leave_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(tmp_path / "r1", 0.5, np.random.default_rng(0))
    (tmp_path / "closed").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "closed"))
    found = analysis.load(tmp_path)
    assert found.trials["metric/acc"].notna().all()
    assert any("the scores of the examples of r1/arc_easy are left out: " in problem for problem in found.problems)


def test_load_of_a_file_needs_its_metric_and_of_runs_the_factors_that_they_have(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(BadRequestError, match=r"a table needs the name of its metric: metric= \(--metric\)"):
        analysis.load(tmp_path / "r.csv")
    write_samples(tmp_path / "runs" / "r1", 0.5, np.random.default_rng(0))
    with pytest.raises(BadRequestError, match="unknown factor 'rank'"):
        analysis.load(tmp_path / "runs", factors=["rank"])


def test_from_frame_counts_the_rows_without_a_setting(frame: pd.DataFrame) -> None:
    frame["method"] = frame["method"].where(frame["method"] == "a")
    assert "10 of 20 rows have no method; they are its level unset" in analysis.from_frame(frame, "loss").problems


def test_from_frame_of_scores_says_that_a_column_is_no_setting(frame: pd.DataFrame) -> None:
    rows = [(r, seed, n, n % 7, 0.1 * n) for r in (1, 4) for seed in range(2) for n in range(20)]
    scores = pd.DataFrame(rows, columns=["r", "seed", "question", "topic", "loss"])
    says = r"has scores of \d of 20 examples; is one of r, topic, seed no setting of a trial\? Name the settings"
    with pytest.raises(BadRequestError, match=says):
        analysis.from_frame(scores, "loss", factors=["r", "topic"], example="question")
