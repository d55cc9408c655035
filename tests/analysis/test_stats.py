import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.statistics.intervals import Error, detectable, holm, paired, smallest_rank_p, summarise


def test_summary_by_hand():
    found = summarise([1.0, 2.0, 3.0])
    # t(0.975, 2) = 4.302653, half = 4.302653 · 1 / √3
    assert (found.n, found.mean, found.std, found.median) == (3, 2.0, 1.0, 2.0)
    assert found.half == pytest.approx(2.484138, abs=1e-6)


def test_summary_of_too_few_values():
    assert summarise([]).n == 0
    assert math.isnan(summarise([]).mean)
    one = summarise([5.0, math.nan, math.inf])
    assert (one.n, one.mean) == (1, 5.0)
    assert math.isnan(one.low)


def test_interval_equals_scipy():
    x = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, loc=x.mean(), scale=stats.sem(x))
    found = summarise(x)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_paired_by_hand():
    # mean 2, sd 1, t = 2 / (1/√3) = 3.4641, two-sided p at 2 degrees of freedom = 0.07418
    found = paired([1.0, 2.0, 3.0])
    assert found.p == pytest.approx(0.0741799, abs=1e-6)
    assert found.effect == 2.0


def test_paired_differences_without_spread_prove_nothing():
    for same in ([0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0, 0.0]):
        assert math.isnan(paired(same).p)
    assert math.isnan(paired([1.0]).p)


def test_holm_equals_statsmodels_and_skips_nan():
    ps = [0.04, 0.001, 0.03, 0.5, 0.02]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])
    assert holm([0.04, math.nan, 0.03])[::2] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([0.04, math.nan])[1])
    assert holm([]) == []


@pytest.mark.parametrize(("n", "family"), [(3, 1), (5, 1), (5, 6), (10, 6), (30, 1)])
def test_detectable_difference_has_80_percent_power_by_statsmodels(n: int, family: int):
    effect = detectable(Error(0.5 / n**0.5, n - 1), family) / 0.5
    assert TTestPower().power(effect, n, 0.05 / family) == pytest.approx(0.8, abs=1e-3)


def test_detectable_difference_has_80_percent_power_by_simulation():
    # Three seeds and six comparisons, where statsmodels gives NaN; 0.004 is three standard errors.
    n, family = 3, 6
    x = np.random.default_rng(0).normal(detectable(Error(n**-0.5, n - 1), family), 1.0, (100_000, n))
    p = stats.ttest_1samp(x, 0, axis=1).pvalue
    assert (p < 0.05 / family).mean() == pytest.approx(0.8, abs=0.004)


def test_detectable_difference_at_the_edges():
    assert detectable(Error(0.0, 4)) == 0.0
    assert 0 < detectable(Error(1.0, 1), 50) < 1e5


def test_equivalence_is_two_one_sided_t_tests():
    x = np.random.default_rng(3).normal(0.1, 1.0, 12)
    upper, lower = (
        stats.ttest_1samp(x, bound, alternative=side).pvalue for bound, side in ((0.9, "less"), (-0.9, "greater"))
    )
    assert paired(x).p_outside(0.9) == pytest.approx(max(upper, lower))
    assert paired(x).p_outside(abs(x.mean())) == pytest.approx(0.5)
    assert math.isnan(paired([1.0, 1.0, 1.0]).p_outside(2.0))


def test_smallest_rank_p():
    assert [smallest_rank_p(n) for n in (3, 5, 6)] == [0.25, 0.0625, 0.03125]
    differences = np.arange(1, 6) / 10
    assert stats.wilcoxon(differences, method="exact").pvalue == smallest_rank_p(5)
