"""What moments say: bias, variance, their intervals, and a verdict.

All intervals are at 95 %.  They rest on J independent batches of replicates (64 unless there are
too few replicates).  Batch statistics are averages of many independent terms, hence close to
normal whatever the estimator's own law, and their spread needs no formula for its fourth
moments or for the correlation of coordinates.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from scipy.optimize import brentq
from torch import Tensor

from gradest.moments import Moments

CONFIDENCE = 0.95
BIASED_BELOW = 0.01  # family-wise p under which an estimator is called biased
UNBIASED_WITHIN = 0.02  # relative bias that an estimator called unbiased cannot exceed


_PSEUDO_EVENTS = 8
_AGAINST_EXACT = (
    *("gradient_norm", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm", "relative_bias"),
    *("max_z", "p_value", "mse", "snr"),
)


class Interval(NamedTuple):
    """An estimate, its 95 % interval and its standard error."""

    estimate: float
    low: float
    high: float
    standard_error: float

    @classmethod
    def exactly(cls, value: float) -> "Interval":
        return cls(value, value, value, 0.0)


def mean_interval(moments: Moments) -> Interval:
    """The mean of one coordinate, by the central limit theorem over all replicates."""
    pooled = moments.pooled()
    replicates, mean = float(pooled.count[0]), float(pooled.mean[0, 0])
    if replicates == 1:
        return Interval.exactly(mean)
    error = float(pooled.m2[0, 0] / (replicates - 1) / replicates) ** 0.5
    half = stats.t.ppf(_upper(), replicates - 1) * error
    return Interval(mean, mean - half, mean + half, error)


def total_variance(moments: Moments) -> Interval:
    """tr Cov(ĝ) of one estimate.

    The estimate is the unbiased one over all replicates.  The interval is a t interval over the
    batches' own unbiased estimates, which are independent and identically distributed; taken
    on the logarithm, because they are positive and skewed to the right:

        v exp(± t_{J−1} s / (v √J)),    s = standard deviation of the J batch variances
    """
    pooled = moments.pooled()
    replicates, batches = float(pooled.count[0]), len(moments.count)
    if replicates == 1:
        return Interval.exactly(0.0)
    variance = float(pooled.m2.sum() / (replicates - 1))
    if variance == 0:
        return Interval.exactly(0.0)
    each = moments.m2.sum(1) / (moments.count - 1)  # [J]
    error = float(each.std()) / batches**0.5
    factor = float(np.exp(stats.t.ppf(_upper(), batches - 1) * error / variance))
    return Interval(variance, variance / factor, variance * factor, error)


def squared_bias(moments: Moments, exact: Tensor) -> Interval:
    """‖E ĝ − g‖², debiased, for the true gradient g [D].

    x = ‖mean − g‖² alone is too large by tr Σ/R, so the estimate is x − tr Σ̂/R: unbiased, and
    therefore negative half of the time where there is no bias.

    The interval inverts a test.  In the direction of the deviation the mean has variance κ, and
    x/κ is close to a noncentral χ² with ν = (tr Σ/R)/κ degrees of freedom and noncentrality
    ‖bias‖²/κ: it has the right mean always, the right variance where the bias dominates (4κ‖bias‖²
    then), and Satterthwaite's where it vanishes (κ is then near tr Σ²/(R tr Σ)).  κ is estimated
    from the batch means; levels are widened to those of a t distribution with J − 1 degrees of
    freedom for that.  A deviation smaller than its own noise is taken to be as large as the noise
    for the upper end, since luck is no evidence of a small bias.
    """
    pooled = moments.pooled()
    replicates, batches = float(pooled.count[0]), len(moments.count)
    deviation = pooled.mean[0] - exact  # [D]
    x = float(deviation.square().sum())
    noise = float(pooled.m2.sum() / (replicates - 1) / replicates) if replicates > 1 else 0.0
    if noise == 0 or x == 0:
        return Interval.exactly(x) if noise == 0 else Interval(-noise, 0.0, 0.0, noise)
    weight = moments.count / replicates  # [J]
    along = (moments.mean - pooled.mean) @ deviation  # [J]
    kappa = float((weight * along.square()).sum()) / (batches - 1) / x
    if kappa <= x * 1e-12:  # nothing but rounding separates the replicates
        return Interval(x - noise, max(x - noise, 0.0), x, (noise * x) ** 0.5)
    tail = float(stats.norm.cdf(-stats.t.ppf(_upper(), batches - 1)))
    freedom = noise / kappa
    low = kappa * _noncentrality(x / kappa, freedom, 1 - tail)
    high = kappa * _noncentrality(max(x, noise) / kappa, freedom, tail)
    error = (2 * noise * kappa + 4 * kappa * max(x - noise, 0.0)) ** 0.5
    return Interval(x - noise, low, high, error)


def largest_z(
    moments: Moments, exact: Tensor, peak: float, resolution: float
) -> tuple[float, float]:
    """The largest coordinate-wise |z| of mean − g and its family-wise p-value.

    Coordinate by coordinate, so that opposite biases cannot cancel; Šidák over the coordinates,
    which holds under their correlation too (rows of a softmax gradient sum to zero, so that a
    naive Hotelling test would invert a singular matrix).

    Rare outcomes make an empirical standard error too small: a category that was never drawn
    leaves no spread at all.  So every standard error is taken as if eight more draws of
    the largest size seen, `peak`, had fallen on the coordinate.  An unseen outcome then needs
    an expectation of twelve appearances to reach z = 4.3, which happens to one in 10⁵.

    What the arithmetic cannot resolve, `resolution` relative to the largest coordinate, is no
    evidence.  `moments` and `exact` are with respect to log α: z does not depend on the scale.
    """
    pooled = moments.pooled()
    replicates = float(pooled.count[0])
    second_moment = pooled.mean[0].square() + pooled.m2[0] / replicates
    rounding = resolution * float(second_moment.max().sqrt() + exact.abs().max())
    excess = ((pooled.mean[0] - exact).abs() - rounding).clamp(min=0)
    variance = pooled.m2[0] / max(replicates - 1, 1) / replicates
    if replicates > 1:
        variance = variance + _PSEUDO_EVENTS * (peak / replicates) ** 2
    z = torch.where(excess > 0, excess / variance.sqrt(), 0.0)  # a certain deviation is infinite
    largest = float(z.max())
    p = 2 * stats.norm.sf(largest)
    return largest, float(-np.expm1(len(exact) * np.log1p(-min(p, 1 - 1e-16))))


def describe(
    moments: Moments, exact: Tensor | None, weight: Tensor, peak: float, resolution: float
) -> dict[str, Any]:
    """The statistical columns of a results row.

    `moments` [J, D] and `exact` [D] are with respect to log α; the row speaks of weight · ĝ.
    """
    scaled = moments.scaled(weight)
    variance = total_variance(scaled)
    spread = {
        "variance": variance.estimate,
        "variance_low": variance.low,
        "variance_high": variance.high,
    }
    if exact is None:
        return {**dict.fromkeys(_AGAINST_EXACT, float("nan")), "verdict": "inconclusive", **spread}
    norm = float((exact * weight).norm())
    bias = squared_bias(scaled, exact * weight)
    bias_norm = max(bias.estimate, 0.0) ** 0.5
    max_z, p_value = largest_z(moments, exact, peak, resolution)
    return {
        "gradient_norm": norm,
        "bias_sq": bias.estimate,
        "bias_sq_low": bias.low,
        "bias_sq_high": bias.high,
        "bias_norm": bias_norm,
        "relative_bias": _ratio(bias_norm, norm),
        "max_z": max_z,
        "p_value": p_value,
        "verdict": verdict(p_value, bias, norm),
        **spread,
        "mse": max(bias.estimate, 0.0) + variance.estimate,
        "snr": _ratio(norm**2, variance.estimate),
    }


def verdict(p_value: float, bias: Interval, gradient_norm: float) -> str:
    """biased, unbiased or inconclusive.

    Unbiased is an equivalence test, the upper end of the interval against 2 % of ‖g‖: a noisy
    estimator does not pass by being noisy.
    """
    if p_value < BIASED_BELOW:
        return "biased"
    return "unbiased" if bias.high <= (UNBIASED_WITHIN * gradient_norm) ** 2 else "inconclusive"


def _upper() -> float:
    return (1 + CONFIDENCE) / 2


def _ratio(a: float, b: float) -> float:
    if b == 0:
        return 0.0 if a == 0 else float("inf")
    return a / b


def _noncentrality(x: float, freedom: float, level: float) -> float:
    """The noncentrality at which P(χ²_freedom(·) ≤ x) = level, or 0 where none is as large."""
    if stats.chi2.cdf(x, freedom) <= level:
        return 0.0
    # The square root of a noncentral χ² is nearly normal with unit variance.
    top = (x**0.5 + 8 + freedom**0.5) ** 2

    def above(root: float) -> float:
        return float(stats.ncx2.cdf(x, freedom, root**2)) - level

    return brentq(above, 0.0, top**0.5, xtol=1e-10, rtol=1e-12) ** 2
