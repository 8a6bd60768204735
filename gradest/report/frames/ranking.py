"""Ranks with ties, from tests of differences.

The overlap of two intervals is not a test: bars of 95 % that just touch differ with p = 0.006.
Two numbers are compared by the logarithm of their ratio instead.  Its standard error comes from the
ends of their intervals that face each other, the upper end of the smaller number and the lower end
of the larger one, which are the ends that matter where intervals are not symmetric:

    d = log x_j − log x_i,    s² = (log(u_i/x_i)/t_i)² + (log(x_j/l_j)/t_j)²

with t the quantile of the 95 % interval; d/s is taken for a t variable with the degrees of freedom
of Welch.  All pairs are one family, by Holm: with 95 % probability no equal numbers are called
different.

Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008;
Welch, "The generalization of Student's problem when several different population variances are
involved", 1947.
"""

from typing import NamedTuple

import numpy as np

from gradest.statistics import CONFIDENCE, holm, t_isf, t_ppf, t_sf

LEVEL = 1 - CONFIDENCE
POWER = 0.8

_LARGEST = 700.0  # exp of more overflows


class Ranks(NamedTuple):
    """Of numbers in ascending order.

    `detectable` is NaN but for those that share the rank of one above: the smallest ratio to the
    first with that rank that the test would detect with a power of 80 % or more.
    """

    rank: np.ndarray
    detectable: np.ndarray


def ranks(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    freedom: np.ndarray,
    rounding: float = 0.0,
) -> Ranks:
    """Ranks of ascending, non-negative numbers with 95 % intervals of so many degrees of freedom.

    A number shares the rank of the one above unless it differs significantly from the first with
    that rank: compared with the first, so that a chain of neighbours cannot tie its two ends.
    Numbers without an interval are exact; those that differ by `rounding`, relative, are equal.
    """
    error, joint = _errors(values, low, high, freedom)
    p = _p_values(values, error, joint, rounding)
    tests = np.triu(error > 0, 1)  # exact ones are compared without chance
    p[tests] = holm(p[tests])
    level = LEVEL / max(tests.sum(), 1)  # the strictest of Holm's
    firsts = np.zeros(len(values), dtype=int)  # with the rank of each
    for j in range(1, len(values)):
        firsts[j] = j if p[firsts[j - 1], j] < LEVEL else firsts[j - 1]
    detectable = np.full(len(values), np.nan)
    (shared,) = (firsts != np.arange(len(values))).nonzero()
    pairs = firsts[shared], shared
    if len(shared):
        differences = _detectable_differences(error[pairs], joint[pairs], level)
        detectable[shared] = [as_ratio(each) for each in differences]
    return Ranks(firsts + 1, detectable)


def quantile(freedom: np.ndarray) -> np.ndarray:
    """How many standard errors the end of an interval is away."""
    return t_ppf((1 + CONFIDENCE) / 2, freedom)


def log_errors(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of log x, upwards and downwards; zero for a number without an interval."""
    uncertain, steps = high > low, quantile(freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(uncertain, np.log(high / values) / steps, 0.0)
        below = np.where(uncertain, np.log(values / low) / steps, 0.0)
    return above, below


def combined_error(
    above: np.ndarray, above_freedom: np.ndarray, below: np.ndarray, below_freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of a difference, and its degrees of freedom, from the ends that face."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(above, below)
        freedom = error**4 / (above**4 / above_freedom + below**4 / below_freedom)
    return error, np.where(np.isfinite(freedom), freedom, np.inf)


def p_value(difference: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Two-sided p-values of differences with such standard errors; 1 where the error is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(np.divide(difference, error))
    return np.nan_to_num(2 * t_sf(z, freedom), nan=1.0)


def detectable_difference(error: float, freedom: float, level: float) -> float:
    """The difference from zero that a test at this level detects with 80 % power."""
    (difference,) = _detectable_differences(np.array([error]), np.array([freedom]), level)
    return float(difference)


def _detectable_differences(error: np.ndarray, freedom: np.ndarray, level: float) -> np.ndarray:
    steps = t_isf(level / 2, freedom) + t_ppf(POWER, freedom)
    return np.where(error > 0, steps * error, 0.0)


def as_ratio(log: float) -> float:
    """exp of a difference of logarithms; infinite where that overflows, or is unknown."""
    return float(np.exp(log)) if log < _LARGEST else np.inf


def _errors(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors [n, n] of log x_j − log x_i for i < j, and their degrees of freedom."""
    above, below = log_errors(values, low, high, freedom)
    return combined_error(above[:, None], freedom[:, None], below[None, :], freedom[None, :])


def _p_values(
    values: np.ndarray, error: np.ndarray, freedom: np.ndarray, rounding: float
) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
        p = p_value(logs[None, :] - logs[:, None], error, freedom)
    certain = values[None, :] > values[:, None] * (1 + rounding)
    infinite = np.isinf(values)[None, :] & np.isfinite(values)[:, None]
    p = np.where(error == 0, np.where(certain, 0.0, 1.0), p)
    return np.where(infinite, 0.0, p)
