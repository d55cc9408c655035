from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulate import grid, make_trial, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.statistics.effects import effects
from analysis.statistics.notes import info


def test_effects_of_two_balanced_factors_by_hand():
    """2 × 2 levels, 2 seeds: sums of squares from the cell means with paper and pencil."""
    y = {(1, "a"): (1.0, 2.0), (1, "b"): (3.0, 4.0), (2, "a"): (5.0, 6.0), (2, "b"): (9.0, 12.0)}
    rows = [
        {"adapter.rank": r, "adapter.init": i, "seed": s, "eval/loss": values[s], "status": "finished"}
        for (r, i), values in y.items()
        for s in (0, 1)
    ]
    found = effects(pd.DataFrame(rows), "eval/loss")
    # grand mean 5.25; rank means 2.5, 8: SS = 8 · 2.75² = 60.5; init means 3.5, 7: SS = 8 · 1.75² = 24.5
    # cell means 1.5, 3.5, 5.5, 10.5: interaction SS = 2 · 4 · 0.75² = 4.5; seeds 4.5, 6: SS = 8 · 0.75² = 4.5
    # total SS = 95.5, residual 95.5 − 60.5 − 24.5 − 4.5 − 4.5 = 1.5 at 3 degrees of freedom
    shares = {effect.source: effect.share for effect in found.effects}
    assert shares["adapter.rank"] == pytest.approx(60.5 / 95.5)
    assert shares["adapter.init"] == pytest.approx(24.5 / 95.5)
    assert shares["adapter.rank × adapter.init"] == pytest.approx(4.5 / 95.5)
    assert found.effects[0].partial == pytest.approx(60.5 / 62.0)
    assert found.effects[0].f == pytest.approx(60.5 / (1.5 / 3))
    assert found.residual_freedom == 3


def test_effects_of_a_simulated_sweep_are_its_factors(rank_sweep: Path):
    found = effects(analysis.load(rank_sweep).trials, "eval/loss")
    order = [effect.source for effect in found.effects]
    assert order[:3] == ["adapter.rank", "adapter.targets", "adapter.init"]
    assert [effect.p_holm < 0.05 for effect in found.effects] == [True] * 3 + [False] * 3
    assert found.n == 60


def test_effects_refuse_what_cannot_be_analysed(tmp_path: Path, rank_sweep: Path):
    trials = analysis.load(rank_sweep).trials
    with pytest.raises(BadRequestError, match="is the same in every trial"):
        effects(trials.assign(**{"eval/loss": 1.0}), "eval/loss")
    one = write_sweep(tmp_path / "one", [make_trial(0)], np.random.default_rng(0))
    with pytest.raises(BadRequestError, match="no factor was swept"):
        effects(analysis.load(one).trials, "eval/loss")
    thin = write_sweep(tmp_path / "thin", grid([0], (), rank=[1, 2]), np.random.default_rng(0))
    with pytest.raises(BadRequestError, match="2 trials are too few"):
        effects(analysis.load(thin).trials, "eval/loss")


def test_effects_of_one_seed_have_no_block_and_say_so(tmp_path: Path):
    trials = grid([0], (), rank=[1, 2, 4], targets=["all_linear", "attention", "mlp"])
    found = effects(analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0))).trials, "eval/loss")
    assert found.notes == (info("no block"),)
    assert {effect.source for effect in found.effects} == {"adapter.rank", "adapter.targets"}
