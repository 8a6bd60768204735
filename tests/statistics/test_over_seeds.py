"""Shares of seeds and medians over seeds: intervals that cover, and tests that are exact."""

import math

import numpy as np
import pytest
from scipy import stats

from gradest.statistics import (
    Interval,
    median_interval,
    median_test,
    share_interval,
    share_test,
)


@pytest.mark.parametrize(("count", "seeds"), [(0, 10), (3, 10), (10, 10), (31, 32), (64, 64)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(count: int, seeds: int) -> None:
    expected = stats.binomtest(count, seeds).proportion_ci(0.95, "exact")
    interval = share_interval(count, seeds)
    assert interval.ends == pytest.approx((count / seeds, expected.low, expected.high), abs=1e-12)


def test_a_share_is_tested_by_the_binomial_distribution() -> None:
    sides = share_test(64, 64, 0.9)
    assert sides.above == pytest.approx(0.9**64) and sides.below == 1.0
    sides = share_test(2, 20, 0.5)
    assert sides.below == pytest.approx(stats.binomtest(2, 20, 0.5, "less").pvalue)
    assert sides.above == pytest.approx(stats.binomtest(2, 20, 0.5, "greater").pvalue)
    # Bounds at the ends: one seed settles what no seed could contradict.
    assert share_test(1, 8, 0.0) == (1.0, 0.0) and share_test(7, 8, 1.0) == (0.0, 1.0)
    assert share_test(8, 8, 1.0).above == 1.0


def test_the_interval_of_a_median_is_between_order_statistics() -> None:
    values = np.arange(1.0, 11.0)[::-1]
    assert median_interval(values) == Interval(5.5, 2.0, 9.0)  # of ten, the second and the ninth
    assert median_interval(np.arange(5.0)).ends == (2.0, -math.inf, math.inf)
    assert median_interval(np.arange(6.0)).ends == (2.5, 0.0, 5.0)
    with_zero_variance = [-math.inf] * 7 + [1.0]
    assert median_interval(with_zero_variance).estimate == -math.inf


@pytest.mark.parametrize("seeds", [6, 7, 16, 33, 100])
def test_the_interval_of_a_median_covers_it_and_is_as_narrow_as_it_can_be(seeds: int) -> None:
    """From the k-th to the k-th last value it misses the median with 2 P(Bin(n, ½) < k)."""
    low = int(median_interval(np.arange(float(seeds))).low)  # k − 1
    missed = 2 * stats.binom.cdf(low, seeds, 0.5)
    assert missed <= 0.05 < 2 * stats.binom.cdf(low + 1, seeds, 0.5)


def test_a_median_is_tested_by_signs_and_ties_count_for_neither_side() -> None:
    values = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    sides = median_test(values, 2.0)
    assert sides.below == pytest.approx(stats.binom.sf(0, 8, 0.5))
    assert sides.above == pytest.approx(stats.binom.sf(4, 8, 0.5))
    assert median_test(values, 100.0) == pytest.approx((0.5**8, 1.0))
    assert median_test([-math.inf] * 8, -11.0).below == pytest.approx(0.5**8)
