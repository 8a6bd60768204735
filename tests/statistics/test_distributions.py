"""Quantiles and tails: those of scipy.stats, to the bit."""

import numpy as np
import pytest
from scipy import stats

from gradest.statistics.distributions import (
    chi2_isf,
    f_ppf,
    normal_isf,
    normal_sf,
    t_isf,
    t_ppf,
    t_sf,
)

FREEDOM = np.array([1.0, 1.5, 2.0, 7.0, 63.0, 1e6, np.inf])[:, None]
P = np.array([1e-300, 1e-12, 1e-3, 0.025, 0.2, 0.5, 0.8, 0.975, 1 - 1e-12])
X = np.array([-np.inf, -40.0, -1.0, 0.0, 1e-9, 0.5, 3.0, 40.0, 1e150, np.inf, np.nan])


@pytest.mark.parametrize("own, theirs", [(t_isf, stats.t.isf), (t_ppf, stats.t.ppf)])
def test_quantiles_of_t(own, theirs):
    np.testing.assert_array_equal(own(P, FREEDOM), theirs(P, FREEDOM))


def test_tails_of_t():
    np.testing.assert_array_equal(t_sf(X, FREEDOM), stats.t.sf(X, FREEDOM))


def test_the_normal_distribution():
    np.testing.assert_array_equal(normal_isf(P), stats.norm.isf(P))
    np.testing.assert_array_equal(normal_sf(X), stats.norm.sf(X))


def test_quantiles_of_chi2():
    freedom = FREEDOM[np.isfinite(FREEDOM[:, 0])]
    np.testing.assert_array_equal(chi2_isf(P, freedom), stats.chi2.isf(P, freedom))


def test_quantiles_of_f():
    np.testing.assert_array_equal(f_ppf(P, 63, 15), stats.f.ppf(P, 63, 15))


@pytest.mark.parametrize("freedom", [0.0, -1.0, np.nan])
def test_without_degrees_of_freedom_nothing_is_known(freedom):
    assert np.isnan([t_isf(0.025, freedom), t_ppf(0.025, freedom), t_sf(1.0, freedom)]).all()
