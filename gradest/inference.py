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
_LARGE = 1e6  # from here on a noncentral χ² is normal to a thousandth of its standard deviation
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
        return Interval.exactly(float(pooled.m2.sum()))
    variance = float(pooled.m2.sum() / (replicates - 1))
    if variance == 0:
        return Interval.exactly(0.0)
    each = moments.m2.sum(1) / (moments.count - 1)  # [J]
    error = float(each.std()) / batches**0.5
    factor = float(np.exp(stats.t.ppf(_upper(), batches - 1) * error / variance))
    return Interval(variance, variance / factor, variance * factor, error)


def squared_bias(moments: Moments, exact: Tensor) -> Interval:
    """‖E ĝ − g‖², debiased, for the true gradient g [D].

    x = ‖mean − g‖² alone is too large by t₁ = tr Σ/R, so the estimate is x − t₁: unbiased, and
    therefore negative half of the time where there is no bias.

    The interval inverts a test.  For a mean that is normal, by the central limit theorem, and a
    bias of square β, x has the mean t₁ + β and the variance 2 t₂ + 4 κ β, where t₂ = tr Σ²/R² and κ
    is the variance of the mean along the bias.  Its law is taken to be that of a χ'²_ν(δ), a
    scaled noncentral χ² with these two moments:

        a = (t₂ + 2 κ β) / (t₁ + 2 β),    ν = t₁/a,    δ = β/a

    which is exact for equal variances, and Satterthwaite's approximation where β = 0.  t₂ and κ are
    estimated from the J batch means, and levels are widened to those of a t distribution with
    J − 1 degrees of freedom for that.

    The upper end needs care twice, for luck is no evidence of a small bias.  A deviation smaller
    than its own noise is taken to be as large as the noise.  And noise that shortens the deviation
    also turns it away from where the noise is, so κ is taken where the deviation would be without
    that much luck: moved outward along Σ (mean − g) by the quantile's standard errors.
    """
    pooled = moments.pooled()
    replicates, batches = float(pooled.count[0]), len(moments.count)
    deviation = pooled.mean[0] - exact  # [D]
    x = float(deviation.square().sum())
    t1 = float(pooled.m2.sum() / (replicates - 1) / replicates) if replicates > 1 else 0.0
    if t1 == 0:
        return Interval.exactly(x)
    quantile = float(stats.t.ppf(_upper(), batches - 1))
    tail = float(stats.norm.cdf(-quantile))
    scatter = _scatter(moments)
    noise = _Noise.of(scatter, deviation, t1)
    low = noise.squared_bias(x, 1 - tail)
    further = _moved(deviation, scatter, quantile)
    high = _Noise.of(scatter, further, t1).squared_bias(max(x, t1), tail)
    error = (2 * noise.t2 + 4 * noise.kappa * max(x - t1, 0.0)) ** 0.5
    return Interval(x - t1, low, high, error)


class _Noise(NamedTuple):
    """The covariance of the mean, as far as ‖mean − g‖² depends on it."""

    t1: float  # tr Σ/R
    t2: float  # tr Σ²/R²
    kappa: float  # variance along the deviation

    @classmethod
    def of(cls, scatter: Tensor, deviation: Tensor, t1: float) -> "_Noise":
        """From the scatter of the batch means, whose Gram matrix has the traces of Σ/R."""
        freedom = len(scatter) - 1
        gram = scatter @ scatter.T  # [J, J]
        # The trace of a squared sample covariance is too large by about (tr Σ)²/freedom.
        squared = float(gram.square().sum() - gram.trace().square() / freedom)
        t2 = squared * freedom**2 / ((freedom - 1) * (freedom + 2))
        length = float(deviation.square().sum())
        if length > 0:
            kappa = float((scatter @ deviation).square().sum()) / length
        else:  # no direction: the noisiest stands for it
            kappa = float(torch.linalg.matrix_norm(scatter, 2)) ** 2
        return cls(t1, min(max(t2, t1**2 / len(deviation)), t1**2), min(kappa, t1))

    def squared_bias(self, x: float, level: float) -> float:
        """The squared bias under which ‖mean − g‖² ≤ x has this probability; 0 where none has."""
        if self._probability(x, 0.0) <= level:
            return 0.0
        top = max(x, self.t1)
        while self._probability(x, top) > level:
            top *= 2
        return brentq(lambda beta: self._probability(x, beta) - level, 0.0, top, rtol=1e-10)

    def _probability(self, x: float, beta: float) -> float:
        a = (self.t2 + 2 * self.kappa * beta) / (self.t1 + 2 * beta)
        if (x + beta) / a > _LARGE:
            spread = (2 * self.t2 + 4 * self.kappa * beta) ** 0.5
            return float(stats.norm.cdf((x - self.t1 - beta) / spread))
        return float(stats.ncx2.cdf(x / a, self.t1 / a, beta / a))


def _scatter(moments: Moments) -> Tensor:
    """[J, D] whose columns have the covariance of the mean, Σ/R, as their Gram matrix."""
    share = (moments.count / moments.count.sum()).sqrt().unsqueeze(1)  # [J, 1]
    centre = (share.square() * moments.mean).sum(0)  # [D]
    return share * (moments.mean - centre) / (len(share) - 1) ** 0.5


def _moved(deviation: Tensor, scatter: Tensor, errors: float) -> Tensor:
    """The deviation, so many standard errors further along Σ · deviation."""
    along = scatter @ deviation  # [J]
    length = along.norm()
    return deviation + errors * (along @ scatter) / length if length > 0 else deviation


def largest_z(
    moments: Moments, exact: Tensor, peak: float, resolution: float
) -> tuple[float, float]:
    """The largest coordinate-wise |z| of mean − g and its family-wise p-value.

    Coordinate by coordinate, so that opposite biases cannot cancel; Šidák over the coordinates,
    which holds under their correlation too (rows of a softmax gradient sum to zero, so that a
    naive Hotelling test would invert a singular matrix).

    Rare outcomes make an empirical standard error too small: a category that was never drawn
    leaves no spread at all.  So every standard error is taken as if eight more draws of
    the largest size, `peak`, had fallen on the coordinate.  An unseen outcome then needs
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
    moments: Moments,
    exact: Tensor | None,
    weight: Tensor,
    peak: float,
    resolution: float,
    reference: Moments | None = None,
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
        "variance_precision": _ratio(variance.high, variance.estimate) - 1
        if variance.high
        else 0.0,
        "bias_precision": float("nan"),
        "detectable_bias": float("nan"),
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


def replicates_needed(pilot, exact, weight, peak, variance=None, bias=None, reference=None) -> int:
    v = total_variance(pilot)
    R = float(pilot.count.sum())
    a = R * ((v.high / v.estimate - 1) / variance) ** 2 * 1.2 if variance else 0
    b = v.estimate / (bias / 1.5 * float(exact.norm())) ** 2 if bias and exact is not None else 0
    return int(max(a, b, 2048))
