"""Ranks with ties, from tests of differences.

Whether two intervals overlap is no test: bars of 95 % that just touch differ with p = 0.006.  Here
two numbers are compared by the logarithm of their ratio.  Its standard error comes from the ends of
their intervals that face each other, of the smaller the upper one and of the larger the lower one,
which is what counts where intervals are not symmetric:

    d = log x_j − log x_i,    s² = (log(u_i/x_i)/t_i)² + (log(x_j/l_j)/t_j)²

with t the quantile of the 95 % interval; d/s is taken for a t variable with the degrees of freedom
of Welch.  All pairs are one family, by Holm: with 95 % probability no two are told apart wrongly.

Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008;
Welch, "The generalization of Student's problem when several different population variances are
involved", 1947.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from gradest.analysis.multiplicity import holm
from gradest.inference import CONFIDENCE

LEVEL = 1 - CONFIDENCE
POWER = 0.8


class Ranks(NamedTuple):
    """Of numbers in ascending order.

    `detectable` is NaN but for those that share the rank of one above: the smallest ratio to the
    first with that rank that would have been told apart with a probability of 80 % or more.
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

    A number shares the rank of the one above unless it is told apart from the first with that
    rank: compared with the first, so that a chain of neighbours cannot tie its two ends.  Numbers
    without an interval are exact; those that differ by `rounding`, relative, are equal.
    """
    error, joint = _errors(values, low, high, freedom)
    p = _p_values(values, error, joint, rounding)
    tests = np.triu(error > 0, 1)  # exact ones are compared without chance
    p[tests] = holm(p[tests])
    level = LEVEL / max(tests.sum(), 1)  # the strictest of Holm's
    rank, detectable = np.ones(len(values), dtype=int), np.full(len(values), np.nan)
    first = 0
    for j in range(1, len(values)):
        if p[first, j] < LEVEL:
            first = j
        else:
            f, e = joint[first, j], error[first, j]
            steps = stats.t.isf(level / 2, f) + stats.t.ppf(POWER, f) if e > 0 else 0.0
            detectable[j] = np.exp(min(steps * e, 700.0)) if np.isfinite(e) else np.inf
        rank[j] = first + 1
    return Ranks(rank, detectable)


def _errors(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors [n, n] of log x_j − log x_i for i < j, and their degrees of freedom."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    uncertain = high > low
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(uncertain, np.log(high / values) / quantile, 0.0)[:, None]
        below = np.where(uncertain, np.log(values / low) / quantile, 0.0)[None, :]
        error = np.hypot(above, below)
        joint = error**4 / (above**4 / freedom[:, None] + below**4 / freedom[None, :])
    return error, np.where(np.isfinite(joint), joint, np.inf)


def _p_values(
    values: np.ndarray, error: np.ndarray, freedom: np.ndarray, rounding: float
) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
        z = (logs[None, :] - logs[:, None]) / error
    p = np.nan_to_num(2 * stats.t.sf(np.abs(z), freedom), nan=1.0)
    certain = values[None, :] > values[:, None] * (1 + rounding)
    infinite = np.isinf(values)[None, :] & np.isfinite(values)[:, None]
    p = np.where(error == 0, np.where(certain, 0.0, 1.0), p)
    return np.where(infinite, 0.0, p)
