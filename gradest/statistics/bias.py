"""The squared bias ‖E ĝ − g‖² and its interval.

For a mean that is normal, by the central limit theorem, and a bias of square β, x = ‖mean − g‖² has
the mean t₁ + β and the variance 2 t₂ + 4 κ β, where Σ is the covariance of mean − g, t₁ = tr Σ,
t₂ = tr Σ² and κ is the variance along the bias.  The distribution of x is approximated by that of
a χ'²_ν(δ), a scaled noncentral χ² with these two moments:

    a = (t₂ + 2 κ β) / (t₁ + 2 β),    ν = t₁/a,    δ = β/a

which is exact for equal variances, and where β = 0 is the approximation of

Satterthwaite, "An approximate distribution of estimates of variance components", 1946.

The interval inverts tests of β, whose acceptance regions are those of

Mandelkern & Schultz, "The statistical analysis of Gaussian and Poisson signals near physical
boundaries", 2000, arXiv hep-ex/9910041.

As with Feldman & Cousins (1998) every β is missed with a probability of 5 %, at zero as far above
the noise, and no interval is empty.  Unlike theirs, an interval is not shortened by chance: an x
below the mean of the noise alone, x < t₁, gives the same interval as x = t₁.  So a β up to β*, the
upper end at x = t₁, is never missed from above, and all 5 % are for an x that is too large for it;
beyond β* each side has half.
"""

from typing import NamedTuple

import scipy
import torch
from torch import Tensor

from gradest.statistics.distributions import chi2_isf, t_isf
from gradest.statistics.intervals import MISSED, Interval
from gradest.statistics.moments import Moments
from gradest.statistics.reference_noise import Noise

_LARGE = 1e6  # above this a noncentral χ² is normal to a thousandth of its standard deviation


class BiasDistribution(NamedTuple):
    """The distribution of ‖mean − g‖², up to the bias."""

    t1: float
    t2: float
    kappa: float  # at the lower end of the interval
    kappa_above: float  # at the upper end
    freedom: float  # degrees of freedom of the estimates of these

    @classmethod
    def of(cls, noise: Noise, deviation: Tensor) -> "BiasDistribution":
        """The distribution with κ along the deviation, since the bias is unknown.

        For the upper end this would be too small by chance: noise that shortens the deviation also
        turns it away from the directions with most noise.  So there κ is taken at the deviation
        moved the other way, along Σ · deviation by the quantile's standard errors.

        Levels are widened to those of a t distribution with R − 1 degrees of freedom.  For κ̂, as
        far as it is based on correlations, these are the degrees of freedom of the batches; it
        counts as far as the variance of x is due to the bias.
        """
        quantile = float(t_isf(MISSED / 2, noise.batches - 1))
        moved = deviation + quantile * noise.standard_error_along(deviation)
        here, there = (_kappa(noise, direction) for direction in (deviation, moved))
        fewest, most = noise.batches - 1, noise.replicates - 1
        beta = max(float(deviation.square().sum()) - noise.t1, 0.0)
        due = 4 * here * beta / (2 * noise.t2 + 4 * here * beta)
        share = due * noise.correlated_share(deviation)
        freedom = 1 / ((1 - share) / most + share / fewest)
        return cls(noise.t1, noise.t2, here, there, freedom)

    def interval(self, x: float) -> Interval:
        above = self.upper(max(x, self.t1))
        low = max(self.lower(x, MISSED / 2), min(self.lower(x, MISSED), self.upper(self.t1)))
        error = (2 * self.t2 + 4 * self.kappa * max(x - self.t1, 0.0)) ** 0.5
        return Interval(x - self.t1, low, above, error)

    def upper(self, x: float) -> float:
        """The β for which an x this small has a probability of 2.5 %."""
        return self._inverse(x, self.kappa_above, self.tail(MISSED / 2))

    def lower(self, x: float, missed: float) -> float:
        """The β for which an x this large has probability `missed`; 0 where none is that small."""
        return self._inverse(x, self.kappa, 1 - self.tail(missed))

    def tail(self, missed: float) -> float:
        """The level of a normal distribution that corresponds to this one of Student's."""
        return float(scipy.special.ndtr(-t_isf(missed, self.freedom)))

    def _inverse(self, x: float, kappa: float, level: float) -> float:
        def excess(beta: float) -> float:
            return self.probability(x, beta, kappa) - level

        if excess(0.0) <= 0:
            return 0.0
        top = max(x, self.t1)
        while excess(top) > 0:
            top *= 2
        return float(scipy.optimize.brentq(excess, 0.0, top, rtol=1e-10))

    def probability(self, x: float, beta: float, kappa: float) -> float:
        """The probability of ‖mean − g‖² ≤ x for a squared bias of β."""
        a = (self.t2 + 2 * kappa * beta) / (self.t1 + 2 * beta)
        if (x + beta) / a > _LARGE:
            spread = (2 * self.t2 + 4 * kappa * beta) ** 0.5
            return float(scipy.special.ndtr((x - self.t1 - beta) / spread))
        return float(scipy.special.chndtr(x / a, self.t1 / a, beta / a))


def squared_bias(moments: Moments, exact: Tensor, reference: Moments | None = None) -> Interval:
    """‖E ĝ − g‖² for the true gradient g [D], or for an estimate of it with these moments.

    The estimate is debiased, x − t₁: unbiased, and therefore negative half of the time for
    an unbiased estimator.
    """
    deviation = moments.pooled.mean[0] - exact  # [D]
    x = float(deviation.square().sum())
    noise = Noise.of(moments, reference)
    if noise is None or noise.t2 == 0:  # none, or so little that its square underflows
        return Interval.exactly(x)
    return BiasDistribution.of(noise, deviation).interval(x)


def detectable_length(moments: Moments, power: float) -> float:
    """The ‖E x‖ whose interval excludes zero with this probability, in any direction.

    It is that in the direction with most noise, where it is largest.
    """
    noise = Noise.of(moments)
    if noise is None or noise.t1 == 0:
        return 0.0
    kappa = max(float(torch.linalg.matrix_norm(s, 2)) ** 2 for s in noise.scatters)
    distribution = BiasDistribution(noise.t1, noise.t2, kappa, kappa, noise.replicates - 1)
    freedom = noise.t1**2 / noise.t2
    # Zero is excluded above this, since all of the 5 % are on that side.
    critical = float(chi2_isf(distribution.tail(MISSED), freedom)) * noise.t2 / noise.t1

    def missed(beta: float) -> float:
        return distribution.probability(critical, beta, kappa) - (1 - power)

    return float(scipy.optimize.brentq(missed, 1e-9 * critical, 100 * critical, rtol=1e-6)) ** 0.5


def _kappa(noise: Noise, direction: Tensor) -> float:
    length = float(direction.square().sum())
    # Without a direction, a value of the noisiest ones: tr Σ² ≤ κ tr Σ.
    return noise.along(direction) / length if length > 0 else noise.t2 / noise.t1
