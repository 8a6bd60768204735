"""Ranks from tests of differences, and many tests at once."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from gradest.report.frames.ranking import LEVEL, POWER, ranks
from gradest.statistics import holm

FREEDOM = 63


def measured(noise, true=None, spread=0.2):
    """[n] variances with 95 % intervals, from J batches with this relative spread, sorted."""
    batches = noise.shape[1]
    quantile = stats.t.ppf(0.975, batches - 1)
    true = np.ones(len(noise)) if true is None else np.asarray(true)
    each = true[:, None] * np.exp(spread * noise)  # [n, J]
    value = each.mean(1)
    factor = np.exp(quantile * each.std(1, ddof=1) / batches**0.5 / value)
    order = value.argsort()
    return value[order], (value / factor)[order], (value * factor)[order]


def ranked(*columns, freedom=FREEDOM, **options):
    values, low, high = map(np.asarray, columns)
    return ranks(values, low, high, np.full(len(values), float(freedom)), **options)


@pytest.mark.slow
def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        p = rng.uniform(size=size) ** 4
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    p = np.array([0.03, math.nan, 0.001, 0.03])
    assert holm(p) == pytest.approx([0.06, math.nan, 0.003, 0.06], nan_ok=True)
    assert holm(np.array([])).size == 0


@pytest.mark.parametrize("batches", [64, 4])
def test_equal_numbers_are_told_apart_in_one_table_of_twenty(batches):
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        columns = measured(rng.normal(size=(8, batches)))
        wrong += len(set(ranked(*columns, freedom=batches - 1).rank)) > 1
    # Each of 28 pairs at 5 % would be wrong in a third of the tables.
    assert wrong <= stats.binom.isf(1e-4, 400, LEVEL)


def test_the_detectable_ratio_is_found_with_its_power():
    rng = np.random.default_rng(2)
    pairs = [ranked(*measured(rng.normal(size=(2, 64)))) for _ in range(50)]
    ratio = np.nanmedian([pair.detectable[1] for pair in pairs])
    assert 1.05 < ratio < 1.2
    runs = [measured(rng.normal(size=(2, 64)), (1, ratio)) for _ in range(400)]
    found = sum(ranked(*columns).rank[1] == 2 for columns in runs)
    assert stats.binomtest(found, 400, POWER).pvalue > 1e-4


def test_bars_that_overlap_may_differ_and_the_smaller_end_counts():
    bars = ([1.0, 1.09], [0.95, 1.04], [1.05, 1.14])
    assert ranked(*bars).rank.tolist() == [1, 2]  # by 2.5 standard errors
    wide = ([1.0, 1.09], [0.5, 1.04], [1.05, 2.0])  # ends that face away change nothing
    assert ranked(*wide).rank.tolist() == [1, 2]
    facing = ([1.0, 1.09], [0.95, 0.6], [1.05, 1.14])
    assert ranked(*facing).rank.tolist() == [1, 1]


def test_a_chain_of_neighbours_does_not_tie_its_ends():
    values = 1.06 ** np.arange(6)
    found = ranked(values, values / 1.05, values * 1.05)
    assert found.rank.tolist() == [1, 1, 3, 3, 5, 5] or found.rank.tolist() == [1, 1, 1, 4, 4, 4]
    told = found.rank == np.arange(1, 7)
    assert np.isnan(found.detectable[told]).all() and (found.detectable[~told] > 1).all()


def test_exact_numbers_are_compared_without_chance():
    exact = [0.0, 0.0, 1.0, 1.0 + 1e-14, 1.0 + 1e-9]
    found = ranked(exact, exact, exact, rounding=1e-12)
    assert found.rank.tolist() == [1, 1, 3, 3, 5]
    assert found.detectable[[1, 3]].tolist() == [1, 1]
    # One more exact row is no further test: the one pair with noise keeps its level.
    pair = ([1.0, 1.09], [0.95, 1.04], [1.05, 1.14])
    more = [[0.0, 0.0, *column] for column in pair]
    assert ranked(*more).rank.tolist()[2:] == [3, 4]


def test_zero_and_infinity_have_their_places():
    found = ranked([0.0, 0.5, 2.0, math.inf], [0, 0.4, 1.9, 1], [0, 0.6, 2.1, math.inf])
    assert found.rank.tolist() == [1, 2, 3, 4]
    # Nothing is told from a number that may be zero as well.
    assert ranked([0.0, 0.5], [0, 0], [0, 1.0]).rank.tolist() == [1, 1]
    assert ranked([0.0, 0.5], [0, 0], [0, 1.0]).detectable[1] == math.inf
    assert ranks(*[np.array([])] * 4).rank.size == 0
