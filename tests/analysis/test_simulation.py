"""The statistics keep their promises on simulated sweeps; tolerances are three binomial standard errors."""

import numpy as np
import pytest

from analysis.statistics.best import best_of
from tests.analysis import crossed_study, keep_study
from tests.analysis.simulation_study import (
    cells,
    detectable_honesty,
    family_errors,
    interactions,
    interval_coverage,
    observed,
    power,
    survivors,
    tuning_errors,
)

pytestmark = pytest.mark.slow


def margin(rate: float, repeats: int) -> float:
    return 3 * (rate * (1 - rate) / repeats) ** 0.5


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_at_their_nominal_rate(n: int):
    found = interval_coverage(np.random.default_rng(n), n, 2000)
    assert found == pytest.approx(0.95, abs=margin(0.95, 2000))


def test_verdicts_that_are_false_stay_below_five_percent_in_a_family():
    plain, corrected, bold = family_errors(np.random.default_rng(1), 5, 8, 300)
    assert corrected <= 0.05 + margin(0.05, 300)
    assert bold <= 0.05
    assert plain > corrected


def test_pairing_finds_what_an_unpaired_test_misses():
    paired, welch = power(np.random.default_rng(2), 5, 0.012, 1000)
    assert paired > 0.6
    assert welch < 0.25


def test_tuning_does_not_flatter():
    flat = tuning_errors(np.random.default_rng(3), 5, 6, 1000)
    assert flat.naive_bias < -0.4
    assert abs(flat.our_bias) < 0.07
    assert flat.our_better <= 0.04 + margin(0.04, 1000)  # the worst case, see docs/statistics.md
    assert flat.naive_better > flat.our_better
    peaked = tuning_errors(np.random.default_rng(3), 5, 3, 1000, gap=0.03)
    assert peaked.our_better == pytest.approx(0.025, abs=margin(0.025, 1000))
    assert peaked.our_worse == pytest.approx(0.025, abs=margin(0.025, 1000))


def test_detectable_difference_is_found_four_times_in_five():
    found, ratio = detectable_honesty(np.random.default_rng(4), 5, 1000)
    assert found == pytest.approx(0.8, abs=margin(0.8, 1000))
    assert 0.85 < ratio < 1.0


def test_interactions_are_found_and_not_invented():
    depends, plain = interactions(np.random.default_rng(5), 5, 4, 0.0, 150)
    assert depends <= 0.05 + margin(0.05, 150)
    assert plain <= 0.05 + margin(0.05, 150)
    depends, plain = interactions(np.random.default_rng(6), 10, 2, 0.012, 50)
    assert depends > 0.9
    assert plain < 0.05


def test_verdicts_of_survivors_of_the_worst_seeds_are_not_plainly_better():
    alone, plain = survivors(np.random.default_rng(7), 8, 3, 100)
    assert alone > 0.2
    assert plain <= 0.025 + margin(0.025, 100)


def test_verdicts_for_new_examples_keep_their_promise_where_those_over_seeds_do_not():
    found = crossed_study.families(np.random.default_rng(8), 5, 64, 200)
    covered, *rates = found["both"]
    assert covered == pytest.approx(0.95, abs=margin(0.95, 200))
    assert max(rates[:3]) <= 0.05 + margin(0.05, 200)
    assert found["seeds"][0] < 0.9
    assert found["seeds"][3] > 0.05 + margin(0.05, 200)


def test_dependences_of_the_examples_at_hand_are_not_found():
    equal = crossed_study.dependences(np.random.default_rng(9), 5, 64, 0.0, 150)
    depends, plain, depends_over_seeds, _ = equal
    assert max(depends, plain) <= 0.05 + margin(0.05, 150)
    assert depends_over_seeds > 0.05 + margin(0.05, 150)


def test_tuning_on_validation_examples_does_not_flatter_on_test_examples():
    better, worse, *on_validation = crossed_study.tuned(np.random.default_rng(10), 5, 64, 300)
    assert max(better, worse) <= 0.025 + margin(0.025, 300)
    assert on_validation[2] > 0.025 + margin(0.025, 300)


def test_best_kept_state_is_reported_without_bias_unless_the_test_examples_chose_it():
    found = keep_study.kept(np.random.default_rng(11), keep_study.RISES["none"], 100)
    assert abs(found["best of 16 validation examples"][0]) < 1e-4 < -found["best of the 256 test examples"][0]


def test_last_state_decides_against_the_better_cell_that_overfits():
    found = keep_study.kept(np.random.default_rng(12), keep_study.RISES["strong"], 100)
    (*_, last_better, last_worse), (*_, better, worse) = found["last"], found["best of 64"]
    assert last_worse > 0.3 > last_better
    assert better > 0.7 > worse
    assert max(found["last"][2], found["best of 64"][2]) <= 0.05 + margin(0.05, 100)


def test_best_of_many_equal_cells_is_reported_without_selection_bias():
    rng = np.random.default_rng(0)
    own, ours, truth = [], [], []
    for _ in range(200):
        observations = observed(cells(rng, np.zeros(36), 5))
        best = best_of(observations, observations.filled)
        truth.append(observations.values.groupby("seed")["value"].mean().mean())
        own.append(observations.summary(best.cell).mean)
        ours.append(best.summary.mean)
    bias = np.mean(np.subtract(ours, truth)) / (0.006 / 5**0.5)
    assert np.mean(np.subtract(own, truth)) / (0.006 / 5**0.5) < -1.5
    assert abs(bias) < 0.3  # three standard errors of 200 sweeps: 3 · 1.3 / √200


def test_best_by_hand():
    # seeds 0, 2 | 1, 3: cell 0 is best on the first half (1 < 2), cell 1 on the second (1 < 5)
    best = best_of(observed(np.array([[1.0, 5.0, 1.0, 5.0], [2.0, 1.0, 2.0, 1.0]])), [("0",), ("1",)])
    assert best.chosen == (("0",), ("1",))
    assert best.summary.mean == (2.0 + 5.0 + 2.0 + 5.0) / 4
    assert not best.peeked
