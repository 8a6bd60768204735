"""Whether a mean is off the truth: one test of all coordinates together.

Two kinds of deviation are looked for, each at half of the level (Bonferroni), for the one test is
nearly blind to the other's:

- a coordinate that is off: the largest |z|, by Šidák over the D coordinates;
- a little everywhere, as of estimates that are scaled: g · mean against ‖g‖², where the
  coordinates add up.

Both hold whatever the correlation of the coordinates and where Σ is singular: rows of a softmax's
gradient sum to zero, so that Hotelling's test of the coordinates would invert nothing.

Rare outcomes make an empirical standard error too small: a category that was never drawn leaves
no spread at all.  A deviation is therefore also held against the worst that outcomes of the largest
size seen, `peak`, can do.  In units of peak/R a variance v of the mean is that of n = v/unit² such
outcomes, and a deviation is e = excess/unit outcomes missing, where n + e are to be expected:

    p = 2 P(Poisson(n + e) ≤ n)

exact for one category, 2 exp(−e) where it was never drawn, and that of a normal z where n is
large.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from gradest.inference.noise import Noise
from gradest.inference.rounding import Arithmetic
from gradest.moments import Moments

POWER = 0.8  # with which a bias of the detectable size is found


class Joint(NamedTuple):
    max_z: float  # the largest of a coordinate
    p_value: float
    detectable: float  # length of weight · bias from which on it is found, whatever its direction


class _Test(NamedTuple):
    """Of deviations [T], or of a single one, each by itself."""

    excess: Tensor  # |deviation|, less what the arithmetic cannot resolve
    rounding: float
    variance: Tensor  # of the deviation
    unit: float  # what one outcome of the largest size adds to it
    freedom: float  # of the variance

    def p_value(self) -> np.ndarray:
        """Two-sided: [T].  A deviation without any noise is certain."""
        excess, variance = self.excess.numpy(), self.variance.numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(excess / np.sqrt(variance), self.freedom)
            if self.unit > 0:
                seen = variance / self.unit**2
                p = np.fmax(p, 2 * special.gammaincc(seen + 1, seen + excess / self.unit))
        return np.where(excess > 0, np.minimum(p, 1.0), 1.0)

    def detectable(self, p: float) -> np.ndarray:
        """The deviations that are found at this level with probability POWER: [T]."""
        variance = self.variance.numpy()
        error = np.sqrt(variance)
        critical = stats.t.isf(p / 2, self.freedom) * error
        if self.unit > 0:
            seen = variance / self.unit**2
            missing = special.gammainccinv(seen + 1, p / 2) - seen
            critical = np.maximum(critical, missing * self.unit)
        return self.rounding + critical + special.ndtri(POWER) * error


def largest_z(
    moments: Moments, exact: Tensor, peak: float, resolution: float
) -> tuple[float, float]:
    """The largest coordinate-wise |z| of mean − g and its family-wise p-value.

    Coordinate by coordinate, so that opposite biases cannot cancel.  z is a score: an excess of e
    outcomes unseen counts with the variance that they would have had.

    What the arithmetic cannot resolve, `resolution` relative to the largest coordinate, is no
    evidence.  `moments` and `exact` are with respect to log α: z does not depend on the scale.
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
    """The largest |z|, the p-value of all together, and the bias that is found at this level.

    A deviation of at most `rounding` in a coordinate is no evidence.  The bias that is found is the
    length of the vector of what the tests of the coordinates would each find: of two vectors, the
    longer is the longer in some coordinate.
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
    found = coordinates.detectable(-np.expm1(np.log1p(-level) / len(exact)))
    return Joint(max_z, p, float(np.linalg.norm(found * weight.numpy())))


def _coordinates(
    moments: Moments, exact: Tensor, peak: float, rounding: float, noise: Noise | None
) -> _Test:
    excess = ((moments.pooled().mean[0] - exact).abs() - rounding).clamp(min=0)
    if noise is None:
        return _Test(excess, rounding, torch.zeros_like(excess), 0.0, 1.0)
    unit, freedom = peak / noise.replicates, noise.replicates - 1
    return _Test(excess, rounding, noise.variance, unit, freedom)


def _projection(
    moments: Moments, exact: Tensor, peak: float, coordinates: _Test, noise: Noise
) -> _Test:
    """Of the deviation on the gradient.  One outcome can be of the largest size everywhere."""
    total = float(exact.abs().sum())
    along = (moments.pooled().mean[0] - exact) @ exact
    rounding = coordinates.rounding * total
    excess = (along.abs() - rounding).clamp(min=0)
    variance = torch.tensor(noise.along(exact), dtype=torch.float64)
    return _Test(excess, rounding, variance, coordinates.unit * total, noise.batches - 1)


def _largest(test: _Test) -> tuple[float, float]:
    score = test.excess / (test.variance + test.unit * test.excess).sqrt()
    z = torch.where(test.excess > 0, score, 0.0)  # a certain deviation is infinite
    p = min(float(test.p_value().min()), 1 - 1e-16)
    return float(z.max()), float(-np.expm1(len(z) * np.log1p(-p)))
