"""A test of all coordinates together for a deviation of the mean from the truth.

Two kinds of deviation are tested, each at half of the level (Bonferroni), because each test has
little power against the other kind:

- a large deviation of some coordinate: the largest |z|, by Šidák over the D coordinates;
- a small one of all coordinates, as of scaled estimates: g · mean against ‖g‖², in which the
  coordinates add up.

Both tests are valid for any correlation of the coordinates and for a singular Σ: the rows of the
gradient of a softmax sum to zero, so that Hotelling's test would invert a singular matrix.

Rare outcomes make an empirical standard error too small: a category that was never drawn leaves
no spread at all.  A deviation is therefore also compared with the largest that outcomes of the
largest size that occurred, `peak`, can cause.  In units of peak/R a variance v of the mean is that
of n = v/unit² such outcomes, and a deviation is e = excess/unit outcomes missing, where n + e are
to be expected:

    p = 2 P(Poisson(n + e) ≤ n)

exact for one category, 2 exp(−e) where it was never drawn, and that of a normal z where n is
large.
"""

from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from gradest.statistics.distributions import t_isf, t_sf
from gradest.statistics.moments import Moments
from gradest.statistics.reference_noise import Noise
from gradest.statistics.rounding import Arithmetic

POWER = 0.8  # of the test, for a bias of the detectable size


class Joint(NamedTuple):
    """The result of the joint test."""

    max_z: float  # the largest of a coordinate
    p_value: float
    detectable: float  # the smallest length of weight · bias that is detected in any direction


class _Test(NamedTuple):
    """Tests of deviations [T], each by itself, or of a single one."""

    excess: Tensor  # |deviation| minus what the arithmetic cannot resolve
    rounding: float
    variance: Tensor  # of the deviation
    unit: float  # the deviation that one outcome of the largest size causes
    freedom: float  # degrees of freedom of the variance

    def p_value(self) -> np.ndarray:
        """The two-sided p-values: [T].  A deviation without any noise is certain."""
        excess, variance = self.excess.numpy(), self.variance.numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * t_sf(excess / np.sqrt(variance), self.freedom)
            if self.unit > 0:
                count = variance / self.unit**2
                p = np.fmax(p, 2 * scipy.special.gammaincc(count + 1, count + excess / self.unit))
        return np.where(excess > 0, np.minimum(p, 1.0), 1.0)

    def detectable(self, p: float) -> np.ndarray:
        """The deviations that are detected at level p with probability POWER: [T]."""
        variance = self.variance.numpy()
        error = np.sqrt(variance)
        critical = t_isf(p / 2, self.freedom) * error
        if self.unit > 0:
            count = variance / self.unit**2
            missing = scipy.special.gammainccinv(count + 1, p / 2) - count
            critical = np.maximum(critical, missing * self.unit)
        return self.rounding + critical + scipy.special.ndtri(POWER) * error


def largest_z(
    moments: Moments, exact: Tensor, peak: float, resolution: float
) -> tuple[float, float]:
    """The largest coordinate-wise |z| of mean − g and its family-wise p-value.

    The test is coordinate by coordinate, so that opposite biases cannot cancel.  z is a score: an
    excess of e outcomes that did not occur counts with the variance that they would have had.

    A deviation that the arithmetic cannot resolve, `resolution` relative to the largest coordinate,
    does not count.  `moments` and `exact` are with respect to log α: z does not depend on the
    scale.
    """
    rounding = Arithmetic(resolution).of_dtype(moments, exact)
    return _largest(_coordinates(moments, exact, peak, rounding, Noise.of(moments)))


def joint_test(
    moments: Moments,
    exact: Tensor,
    weight: Tensor,
    peak: float,
    rounding: float,
    level: float,
    reference: Moments | None = None,
) -> Joint:
    """The largest |z|, the joint p-value, and the bias that is detected at this level.

    A deviation of at most `rounding` in a coordinate does not count.  The detectable bias is the
    length of the vector of the detectable deviations of the coordinates: a longer vector is larger
    in at least one coordinate.
    """
    noise = Noise.of(moments, reference)
    coordinates = _coordinates(moments, exact, peak, rounding, noise)
    max_z, p = _largest(coordinates)
    if noise is None:
        return Joint(max_z, p, rounding * float(weight.norm()))
    if len(exact) > 1:
        along = _projection(moments, exact, peak, coordinates, noise)
        p = min(1.0, 2 * min(p, float(along.p_value())))
        level /= 2
    detectable = coordinates.detectable(-np.expm1(np.log1p(-level) / len(exact)))
    return Joint(max_z, p, float(np.linalg.norm(detectable * weight.numpy())))


def _coordinates(
    moments: Moments, exact: Tensor, peak: float, rounding: float, noise: Noise | None
) -> _Test:
    excess = ((moments.pooled.mean[0] - exact).abs() - rounding).clamp(min=0)
    if noise is None:
        return _Test(excess, rounding, torch.zeros_like(excess), 0.0, 1.0)
    unit, freedom = peak / noise.replicates, noise.replicates - 1
    return _Test(excess, rounding, noise.variance, unit, freedom)


def _projection(
    moments: Moments, exact: Tensor, peak: float, coordinates: _Test, noise: Noise
) -> _Test:
    """The test of the deviation along g; one outcome can be of the largest size everywhere."""
    total = float(exact.abs().sum())
    along = (moments.pooled.mean[0] - exact) @ exact
    rounding = coordinates.rounding * total
    excess = (along.abs() - rounding).clamp(min=0)
    variance = torch.tensor(noise.along(exact), dtype=torch.float64)
    return _Test(excess, rounding, variance, coordinates.unit * total, noise.batches - 1)


def _largest(test: _Test) -> tuple[float, float]:
    score = test.excess / (test.variance + test.unit * test.excess).sqrt()
    z = torch.where(test.excess > 0, score, 0.0)  # a certain deviation is infinite
    p = min(float(test.p_value().min()), 1 - 1e-16)
    return float(z.max()), float(-np.expm1(len(z) * np.log1p(-p)))
