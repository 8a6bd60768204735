"""Statements about repetitions of a run with other seeds: a share of them, and their median.

Both are exact, whatever the distribution of the numbers: the count of seeds on one side of a bound
is binomial.

Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", 1934.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from gradest.statistics.intervals import MISSED, Interval


class Sides(NamedTuple):
    """One-sided p-values: small where the true value is below a bound, or above it."""

    below: float
    above: float


def share_interval(count: int, seeds: int) -> Interval:
    """The probability of an event that `count` of the seeds have, by Clopper and Pearson."""
    beta = scipy.stats.beta
    low = float(beta.ppf(MISSED / 2, count, seeds - count + 1)) if count else 0.0
    high = float(beta.isf(MISSED / 2, count + 1, seeds - count)) if count < seeds else 1.0
    return Interval(count / seeds, low, high)


def share_test(count: int, seeds: int, bound: float) -> Sides:
    """The exact binomial test of that probability against a bound."""
    p = min(max(bound, 0.0), 1.0)
    binomial = scipy.stats.binom(seeds, p)
    return Sides(float(binomial.cdf(count)), float(binomial.sf(count - 1)))


def median_interval(values: Sequence[float]) -> Interval:
    """The median of the distribution of the values, by order statistics.

    From the k-th smallest to the k-th largest value, with the largest k for which the interval
    misses the median with at most 5 %: P(X < k) ≤ 2.5 % for X ~ Bin(n, ½).  Its ends are infinite
    for fewer than six values.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    middle = (len(ordered) - 1) // 2, len(ordered) // 2
    estimate = sum(float(ordered[i]) for i in middle) / 2  # one may be infinite
    k = int(scipy.stats.binom.ppf(MISSED / 2, len(ordered), 0.5))
    while k and scipy.stats.binom.cdf(k - 1, len(ordered), 0.5) > MISSED / 2:
        k -= 1
    if not k:
        return Interval(estimate, -math.inf, math.inf)
    return Interval(estimate, float(ordered[k - 1]), float(ordered[-k]))


def median_test(values: Sequence[float], bound: float) -> Sides:
    """The sign test of the median against a bound; values equal to the bound count for neither."""
    numbers = np.asarray(values, dtype=float)
    below, above = int((numbers < bound).sum()), int((numbers > bound).sum())
    coin = scipy.stats.binom(len(numbers), 0.5)
    return Sides(float(coin.sf(below - 1)), float(coin.sf(above - 1)))
