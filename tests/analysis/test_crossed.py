"""Tests of a difference with seeds and examples as samples: the two-way layout, and ratios linearised by example."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.statistics import crossed
from analysis.statistics.crossed import Layout, layout, needed
from analysis.statistics.examples import by_unit
from analysis.statistics.intervals import paired


def drawn(n: int, m: int, seed: float, example: float, both: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.normal(0, seed, (n, 1)) + rng.normal(0, example, (1, m)) + rng.normal(0, both, (n, m))


def test_layout_has_the_mean_squares_of_a_two_way_analysis_of_variance():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    d = drawn(4, 9, 0.3, 0.5, 0.2)
    places = np.indices(d.shape).reshape(2, -1)
    frame = pd.DataFrame({"d": d.ravel(), "s": places[0], "e": places[1]})
    expected = anova_lm(ols("d ~ C(s) + C(e)", frame).fit())
    found = layout(d)
    assert [found.seeds, found.examples, found.both] == pytest.approx(expected["sum_sq"] / expected["df"])


def test_layout_error_by_hand():
    # (6 + 5 − 2) / (3 · 4) = 0.75; Satterthwaite: 9² / (6² / 2 + 5² / 3 + 2² / 6) = 3
    error = Layout(3, 4, 6.0, 5.0, 2.0).error
    assert (error.size**2, error.freedom) == pytest.approx((0.75, 3.0))
    # (6 + 1 − 4) < 6: the floor, 6 / 12 with the freedom of seeds
    floor = Layout(3, 4, 6.0, 1.0, 4.0).error
    assert (floor.size**2, floor.freedom) == pytest.approx((0.5, 2.0))


@pytest.mark.parametrize("spread", [(0.3, 0.5, 0.2), (0.5, 0.0, 0.1), (0.0, 0.5, 0.1)])
def test_tested_for_both_has_the_larger_p_and_the_wider_interval(spread: tuple[float, float, float]):
    d = drawn(4, 30, *spread) + 0.1
    both, over_seeds = layout(d).error, paired(d.mean(axis=1))
    found = crossed.tested(d.mean(axis=1), d, "both")
    p = 2 * stats.t.sf(abs(d.mean()) / both.size, both.freedom)
    assert found.p == pytest.approx(max(over_seeds.p, p))
    assert found.high - found.low == pytest.approx(max(over_seeds.high - over_seeds.low, 2 * both.half))
    assert crossed.tested(d.mean(axis=1), d, "seeds") == over_seeds


def test_tested_for_examples_is_a_t_test_of_their_means_over_seeds():
    d = drawn(4, 30, 0.3, 0.5, 0.2)
    expected = stats.ttest_1samp(d.mean(axis=0), 0)
    found = crossed.tested(d.mean(axis=1), d, "examples")
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.n == 4


def test_needed_names_the_bottleneck():
    of_examples, of_seeds = layout(drawn(10, 64, 0.001, 0.1, 0.03)), layout(drawn(5, 2000, 0.1, 0.1, 0.03))
    found = needed([of_examples])
    assert found is not None
    assert (found.examples is not None, found.seeds) == (True, None)
    assert of_examples.resized(10, found.examples).half <= of_examples.half / 2
    assert of_examples.resized(10, found.examples - 1).half > of_examples.half / 2
    found = needed([of_seeds])
    assert found is not None
    assert (found.examples, found.seeds is not None) == (None, True)


def test_by_unit_has_the_ratio_as_its_mean_and_the_spread_of_its_jackknife():
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 20, 400).astype(float)
    sums = (rng.normal(1.3, 0.4, 400) * weight)[None]
    parts = by_unit(sums, weight, np.arange(400))[0]
    assert parts.mean() == pytest.approx(sums.sum() / weight.sum())
    without = (sums.sum() - sums[0]) / (weight.sum() - weight)
    jackknife = np.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    assert parts.std(ddof=1) / 20 == pytest.approx(jackknife, rel=0.01)


def test_by_unit_sums_clusters_first():
    sums, weight = np.array([[1.0, 2.0, 3.0, 6.0]]), np.array([1.0, 1.0, 2.0, 2.0])
    found = by_unit(sums, weight, np.array([7, 3, 7, 3]))
    # clusters 3 and 7 have sums 8 and 4, weights 3 and 3: ratio 12 / 6 = 2, parts 2 + (8 − 6) / 3 and 2 + (4 − 6) / 3
    assert found == pytest.approx(np.array([[2 + 2 / 3, 2 - 2 / 3]]))
