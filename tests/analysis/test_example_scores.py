"""Scores of single examples: which the values of a table are, and what becomes of those that are missing or damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scored_sweeps import compared, noted, scored
from simulate import grid, write_scores

import analysis
from analysis.sources.scores import read
from analysis.statistics.cells import observe
from analysis.statistics.effects import effects
from analysis.statistics.examples import by_unit
from sweep import scores
from sweep.scores import EVALUATED_FILE, SCORES_FILE


def test_scores_have_the_printed_value_as_their_mean(tmp_path: Path):
    trials = grid(range(3), (), rank=[1, 4], init=["kaiming", "pissa"])
    sweep = analysis.load(scored(tmp_path, trials))
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss", sweep.metrics)
    assert seen.scores is not None
    assert seen.scores.shape == (6, 64)
    assert seen.scores.mean(axis=1) == pytest.approx(seen.values["value"].to_numpy())


def test_scores_are_those_of_the_rates_that_the_other_seeds_chose(tmp_path: Path):
    folder = scored(tmp_path, grid(range(4), (), rank=[1, 4], lr=[1e-3, 3e-3]), example_sd=0.5)
    sweep = analysis.load(folder)
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss", sweep.metrics)
    rates = sweep.trials.loc[seen.detail["trial"], "optimizer.lr"]
    assert rates.nunique() == 2  # equal rates: the halves disagree
    assert seen.values["value"].to_numpy() == pytest.approx(
        sweep.trials.loc[seen.detail["trial"], "test/loss"].to_numpy()
    )
    for place, scores_of_row in zip(seen.detail["trial"], seen.scores, strict=True):
        own = scores.read(Path(sweep.trials.loc[place, "folder"]) / SCORES_FILE)["target"]
        assert scores_of_row == pytest.approx(
            by_unit(own.sums["test/loss"][None], own.weight, own.example)[0], rel=1e-5
        )


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"\x00" * 20), "not scores of examples"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "not scores of examples"),
        (lambda path: path.unlink() or path.mkdir(), "is a folder"),
        (lambda path: _rewrite(path, 2.0), "its scores are not those of its record"),
        (lambda path: _rewrite(path, np.nan), "test/loss of an example is not a number"),
    ],
    ids=["garbage", "torn", "folder", "other", "nan"],
)
def test_damaged_scores_are_one_line_and_verdicts_are_over_seeds(spoil: Callable, says: str, tmp_path: Path):
    folder = scored(tmp_path)
    spoil(folder / "trial_00003" / SCORES_FILE)
    note = noted(folder, "WARNING: scores of examples are left out")
    assert "trial_00003" in note
    assert says in note
    assert noted(folder, "Verdicts").startswith("Verdicts generalise to new seeds only, on the same examples")
    assert compared(folder).p_holm == compared(folder, generalise="seeds").p_holm


def test_scores_beyond_memory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.sources.scores.MOST_SCORES", 639)
    assert noted(scored(tmp_path), "WARNING: scores") == (
        "WARNING: scores of examples are left out: 10 trials on 64 examples have more than 639 scores."
    )


def _rewrite(path: Path, factor: float) -> None:
    own = scores.read(path)["target"]
    changed = {name: values * np.float32(factor) for name, values in own.sums.items()}
    scores.write({"target": scores.Scores(own.example, own.cluster, own.weight, changed)}, path)


def test_scores_that_are_missing_leave_verdicts_over_seeds(tmp_path: Path):
    folder = scored(tmp_path)
    (folder / "trial_00003" / SCORES_FILE).unlink()
    assert compared(folder).generalise == "seeds"
    assert noted(folder, "Verdicts").startswith("Verdicts generalise to new seeds only")


def test_examples_that_differ_are_compared_on_the_shared_ones(tmp_path: Path):
    folder = scored(tmp_path)
    half = write_scores_of(folder, rank=4, examples=range(32, 96))
    seen = observe(analysis.load(half).trials, ("adapter.rank",), "test/loss")
    assert seen.scores.shape == (10, 32)
    assert seen.values["value"].to_numpy() == pytest.approx(seen.scores.mean(axis=1))
    assert noted(half, "WARNING: trials were scored") == (
        "WARNING: trials were scored on different examples: values and verdicts are on the 32 that all of them share."
    )
    apart = write_scores_of(scored(tmp_path / "b"), rank=4, examples=range(100, 164))
    assert noted(apart, "Verdicts").startswith("Verdicts generalise to new seeds only")


def write_scores_of(folder: Path, rank: int, examples: range) -> Path:
    """Score the trials of one rank on other ``examples``; the records of the others stay."""
    before = {
        path: (path.read_bytes(), path.with_name(SCORES_FILE).read_bytes())
        for path in folder.glob("*/record.json")
        if json.loads(path.read_text())["trial"]["adapter"]["rank"] != rank
    }
    write_scores(folder, np.random.default_rng(4), 0.113, 0.03, examples)
    for path, (record, own) in before.items():
        path.write_bytes(record)
        path.with_name(SCORES_FILE).write_bytes(own)
    return folder


def test_evaluated_scores_take_the_place_of_the_records(tmp_path: Path):
    folder = write_scores(scored(tmp_path), np.random.default_rng(9), 0.113, 0.03, range(512), file=EVALUATED_FILE)
    sweep = analysis.load(folder)
    seen = observe(sweep.trials, ("adapter.rank",), "test/loss")
    assert seen.scores.shape == (10, 512)
    assert seen.values["value"].to_numpy() == pytest.approx(seen.scores.mean(axis=1))
    assert noted(folder, "test/loss is what") == (
        "test/loss is what python -m sweep evaluate scored on 512 examples, in place of the records' own."
    )
    (folder / "trial_00002" / EVALUATED_FILE).unlink()
    assert observe(sweep.trials, ("adapter.rank",), "test/loss").scores.shape == (10, 64)
    assert noted(
        folder, "9 of 10 compared trials were scored by python -m sweep evaluate; the records' own scores are used"
    )


def test_scores_from_the_cache_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.sources.cache.FEWEST_KEPT", 1)
    folder = scored(tmp_path)
    whole, some = (observe(analysis.load(folder).trials, ("adapter.rank",), "test/loss").scores for _ in range(2))
    assert np.array_equal(whole, some)
    few = analysis.load(folder).trials.iloc[3:9]
    monkeypatch.setattr("sweep.scores.read", lambda path: pytest.fail("a file was read again"))
    assert observe(few, ("adapter.rank",), "test/loss").scores.shape == (6, 64)
    monkeypatch.undo()
    monkeypatch.setattr("analysis.sources.cache.FEWEST_KEPT", 1)
    _rewrite(folder / "trial_00003" / SCORES_FILE, 2.0)
    assert "its scores are not those of its record" in noted(folder, "WARNING: scores of examples are left out")


def test_effects_are_of_the_values_that_a_table_has(tmp_path: Path):
    folder = write_scores(scored(tmp_path), np.random.default_rng(9), 0.5, 0.0, range(512), file=EVALUATED_FILE)
    found = effects(analysis.load(folder).trials, "test/loss")
    assert "evaluated" in [note.kind for note in found.notes]
    for path in folder.glob(f"*/{EVALUATED_FILE}"):
        path.unlink()
    assert effects(analysis.load(folder).trials, "test/loss").effects != found.effects


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ((2.0, 2.0), ["b weighs an example differently from a, so their scores are left out"]),
        ((0.0, 1.0), []),  # nothing that both have counts
    ],
)
def test_read_leaves_out_scores_whose_weights_do_not_fit(
    weights: tuple[float, float], says: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shared, other = weights
    for folder, weight, last in (("a", 1.0 if says else 0.0, 7), ("b", shared, 8)):
        Path(folder).mkdir()
        one = scores.Scores(
            np.array([1, last], np.uint64),
            np.arange(2, dtype=np.int32),
            np.array([weight, other], np.float32),
            {"test/loss": np.ones(2, np.float32)},
        )
        scores.write({"target": one}, Path(folder) / SCORES_FILE)
    assert read(["a", "b"], "test/loss") == (None, says)
