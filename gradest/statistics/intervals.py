"""Estimates with their intervals: of a mean, of the variance of one estimate, and of sums of them.

A number `x` of a table has its 95 % interval in the columns `x_low` and `x_high`.

Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gradest.statistics.distributions import normal_isf, t_isf
from gradest.statistics.moments import Moments

CONFIDENCE = 0.95
MISSED = 1 - CONFIDENCE


def columns_of(name: str) -> list[str]:
    """The columns of a number and of the ends of its interval."""
    return [name, f"{name}_low", f"{name}_high"]


class Interval(NamedTuple):
    """An estimate, its 95 % interval and its standard error, which is NaN where it is not known.

    The parts are numbers, or columns of a frame.  Estimates that are added, subtracted or divided
    are taken to be independent: their distances to the ends that matter add in quadrature (MOVER),
    where adding the ends themselves would give an interval that is too wide.
    """

    estimate: Any
    low: Any
    high: Any
    standard_error: float = math.nan

    @classmethod
    def exactly(cls, value: float) -> "Interval":
        return cls(value, value, value, 0.0)

    @classmethod
    def normal(cls, value: float, standard_error: float) -> "Interval":
        """The interval of an estimate whose error is normally distributed."""
        half = float(normal_isf(MISSED / 2) * standard_error)
        if not math.isfinite(half):  # also where the estimate is infinite
            return cls(value, -math.inf, math.inf, standard_error)
        return cls(value, value - half, value + half, standard_error)

    @classmethod
    def unknown(cls) -> "Interval":
        return cls(math.nan, math.nan, math.nan)

    @classmethod
    def of(cls, row: Mapping[str, Any], name: str) -> "Interval":
        """The interval in the columns of a row, or of a frame."""
        return cls(*(row[column] for column in columns_of(name)))

    @property
    def ends(self) -> tuple[Any, Any, Any]:
        """The estimate and both ends, as columns hold them."""
        return self[:3]

    def columns(self, name: str) -> dict[str, Any]:
        """The columns that `of` reads."""
        return dict(zip(columns_of(name), self.ends, strict=True))

    def map(self, increasing: Callable[[Any], Any]) -> "Interval":
        """The interval of an increasing function of the quantity."""
        return Interval(*map(increasing, self.ends))

    def root(self) -> "Interval":
        """The square root of a quantity that is not negative, though its estimate may be."""
        return self.map(lambda end: np.maximum(end, 0.0) ** 0.5)

    def clipped(self, least: float) -> "Interval":
        """With `least` in place of everything below it."""
        return self.map(lambda end: np.maximum(end, least))

    def __add__(self, other: "Interval") -> "Interval":
        total = self.estimate + other.estimate
        below, above = self._distances(other.estimate - other.low, other.high - other.estimate)
        return Interval(total, total - below, total + above)

    def __sub__(self, other: "Interval") -> "Interval":
        difference = self.estimate - other.estimate
        below, above = self._distances(other.high - other.estimate, other.estimate - other.low)
        return Interval(difference, difference - below, difference + above)

    def _distances(self, below: Any, above: Any) -> tuple[Any, Any]:
        """To the ends of a sum, where those of the other term are `below` and `above`."""
        return np.hypot(self.estimate - self.low, below), np.hypot(self.high - self.estimate, above)

    def __mul__(self, factor: float) -> "Interval":
        """Multiplied by an exact number; a negative one exchanges the ends."""
        estimate, low, high = (end * factor for end in self.ends)
        return Interval(estimate, *((low, high) if factor >= 0 else (high, low)))

    def __truediv__(self, other: "Interval") -> "Interval":
        """The ratio of two numbers that are not negative, by the logarithms; NaN over zero."""
        if not (other.estimate > 0 and self.estimate >= 0):
            return Interval.unknown()
        if self.high == 0:
            return Interval.exactly(0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log, divisor = self.map(np.log), other.map(np.log)
            below, above = log._distances(
                divisor.high - divisor.estimate, divisor.estimate - divisor.low
            )
            ratio = self.estimate / other.estimate
            return Interval(ratio, float(ratio * np.exp(-below)), float(ratio * np.exp(above)))


def mean_interval(moments: Moments) -> Interval:
    """The mean of one coordinate, by the central limit theorem over all replicates."""
    pooled = moments.pooled
    replicates, mean = float(pooled.count[0]), float(pooled.mean[0, 0])
    if replicates == 1:
        return Interval.exactly(mean)
    error = float(pooled.m2[0, 0] / (replicates - 1) / replicates) ** 0.5
    half = t_isf(MISSED / 2, replicates - 1) * error
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
    pooled = moments.pooled
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
    u = float(t_isf(MISSED / 2, batches - 1)) * error / variance
    return Interval(variance, variance * math.exp(-u), variance * math.exp(u + u**2 / 2), error)
