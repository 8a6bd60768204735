"""Estimates with their intervals: of a mean, and of the variance of one estimate."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from gradest.statistics.moments import Moments

CONFIDENCE = 0.95
MISSED = 1 - CONFIDENCE


class Interval(NamedTuple):
    """An estimate, its 95 % interval and its standard error."""

    estimate: float
    low: float
    high: float
    standard_error: float

    @classmethod
    def exactly(cls, value: float) -> "Interval":
        return cls(value, value, value, 0.0)


def reach_of_sum(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, Any]:
    """The distances from a sum to the ends of its interval, for numbers or columns of a frame.

    For two nearly independent estimates, each with the ends of its interval, the distances to the
    ends add in quadrature (MOVER); the sums of the ends themselves would be too far apart.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    return np.hypot(a - a_low, b - b_low), np.hypot(a_high - a, b_high - b)


def mean_interval(moments: Moments) -> Interval:
    """The mean of one coordinate, by the central limit theorem over all replicates."""
    pooled = moments.pooled()
    replicates, mean = float(pooled.count[0]), float(pooled.mean[0, 0])
    if replicates == 1:
        return Interval.exactly(mean)
    error = float(pooled.m2[0, 0] / (replicates - 1) / replicates) ** 0.5
    half = scipy.stats.t.isf(MISSED / 2, replicates - 1) * error
    return Interval(mean, mean - half, mean + half, error)


def total_variance(moments: Moments) -> Interval:
    """tr Cov(ĝ) of one estimate.

    The estimate v is the unbiased one over all replicates.  To first order it is the mean over the
    batches of their squares about the common mean, which are independent and identically
    distributed.  The interval is a t interval over these, taken on the logarithm, because a
    variance is positive and skewed to the right:

        v exp(−u)  to  v exp(u + u²/2),    u = t_{J−1} s/v,    s² = (their variance)/J + 2 Σ v_d²/R²

    with v_d the variance of a coordinate.  This term is of second order; it matters where all
    squares about the mean are equal, as those of a fair coin, so that they have no variance.

    u²/2 corrects for tails, which the logarithm does not: where large values did not occur, v and s
    are both too small, so that most misses would be above the upper end.  With it the upper end is,
    to second order, that of an interval on the scale of 1/v, but never infinite.

    A total count of one means that the moments are exact, and m2 is the variance.
    """
    pooled = moments.pooled()
    replicates, batches = float(pooled.count[0]), len(moments.count)
    if replicates == 1:
        return Interval.exactly(float(pooled.m2.sum()))
    variance = float(pooled.m2.sum() / (replicates - 1))
    if variance == 0:
        return Interval.exactly(0.0)
    batch = (
        moments.m2 + moments.count.unsqueeze(1) * (moments.mean - pooled.mean).square()
    )  # [J, D]
    each = batch.sum(1) / moments.count  # [J]
    second_order = 2 * float(pooled.m2.square().sum()) / (replicates - 1) ** 2 / replicates**2
    error = (float(each.var()) / batches + second_order) ** 0.5
    u = float(scipy.stats.t.isf(MISSED / 2, batches - 1)) * error / variance
    return Interval(variance, variance * math.exp(-u), variance * math.exp(u + u**2 / 2), error)
