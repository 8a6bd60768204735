"""The mean of an estimator, split into a multiple of the true gradient and a remainder.

    E ĝ = c g + r,    c = g · E ĝ / ‖g‖²,    r ⟂ g

c is the multiple of g that is closest to E ĝ.  A bias of the step size alone has r = 0: dividing
the estimates by c removes it.  What no rescaling removes is the sine of the angle between them,

    ρ = ‖r‖ / ‖E ĝ‖ = √(1 − cos²(E ĝ, g)) = min_λ ‖λ E ĝ − g‖ / ‖g‖

c is linear in the mean and has a t interval.  The interval of ρ inverts tests of the tangent
q = ‖r‖ / (|c| ‖g‖).  Where q is the true one, the estimates r̂ and ŝ of r and of |c| ‖g‖ satisfy

    r̂ = q ŝ e + (δr − q e δs),    e = r / ‖r‖

so that ‖r̂‖² is distributed as a squared bias of (q ŝ)² with the noise in the brackets: see
`gradest.statistics.bias`.  That the noise depends on q is the idea of

Fieller, "Some problems in interval estimation", 1954,

for the ratio of two means.  Noise that only rescales the mean has no effect on ρ, and where c may
be zero the interval ends at ρ = 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from gradest.statistics.bias import BiasDistribution
from gradest.statistics.distributions import t_isf
from gradest.statistics.intervals import MISSED, Interval
from gradest.statistics.moments import Moments
from gradest.statistics.reference_noise import Noise

_LARGEST = 1 - 1e-9  # the largest ρ that is tested; an interval that holds it ends at 1
_ROUNDING = 1e-12  # of r, relative to the mean and its noise


class Rescaling(NamedTuple):
    """The multiple c of the true gradient, and the relative bias ρ that no rescaling removes."""

    scale: Interval
    residual: Interval


def best_rescaling(
    moments: Moments, exact: Tensor, reference: Moments | None = None, rounding: float = 0.0
) -> Rescaling:
    """c and ρ for the true gradient g [D], or for an estimate of it with these moments.

    Both are unknown where g is zero.  Where the mean is zero, c is 0 and ρ is 1.  An r of at most
    the length `rounding` is zero if it has no noise.
    """
    square = float(exact.square().sum())
    if square == 0:
        return Rescaling(Interval.unknown(), Interval.unknown())
    norm, mean = square**0.5, moments.pooled.mean[0]
    along = exact / norm
    s = float(mean @ along)
    r = mean - s * along
    rounding = max(rounding, _ROUNDING * float(mean.norm()))
    noise = Noise.of(moments, reference)
    if noise is None:
        return Rescaling(Interval.exactly(s / norm), _exact_residual(r, s, rounding))
    split = _Split.of(moments, reference, along, r / norm, s / norm)
    # The square of an estimated length contains the noise of the estimate.
    truth = Noise.of(reference)
    resolved = square - truth.t1 if truth is not None and truth.t1 < square else square
    error = float(np.linalg.norm(split.scale)) / norm
    half = float(t_isf(MISSED / 2, _freedom(noise, exact))) * error
    c = s * norm / resolved
    scale = Interval(c, c - half, c + half, error)
    if split.is_rounding(noise.t1):
        return Rescaling(scale, _exact_residual(r, s, max(rounding, _ROUNDING * noise.t1**0.5)))
    residual = _Angle.of(split, noise, exact, r, s).interval()
    unresolved = scale.low <= 0 <= scale.high
    return Rescaling(scale, residual._replace(high=1.0) if unresolved else residual)


def _exact_residual(r: Tensor, s: float, rounding: float) -> Interval:
    length = float(r.norm())
    if s == 0 and length <= rounding:
        return Interval.exactly(1.0)  # the mean is zero
    return Interval.exactly(0.0 if length <= rounding else length / float(np.hypot(length, s)))


def _freedom(noise: Noise, direction: Tensor) -> float:
    """The degrees of freedom of the variance along a direction.

    Those of all replicates, but as far as it depends on correlations, those of the batches.
    """
    share = noise.correlated_share(direction)
    return 1 / ((1 - share) / (noise.replicates - 1) + share / (noise.batches - 1))


class _Split(NamedTuple):
    """Deviations whose squares sum to variances, one for each batch of the mean and of a reference.

    They are those of the batch means, through the derivatives of r, s and c with respect to the
    means.
    """

    across: np.ndarray  # [J, D], of r
    along: np.ndarray  # [J], of s
    scale: np.ndarray  # [J], of c ‖g‖, on which the length of an estimated g has an effect
    parts: tuple[int, ...]  # the numbers of batches

    @classmethod
    def of(
        cls, moments: Moments, reference: Moments | None, direction: Tensor, r: Tensor, c: float
    ) -> "_Split":
        """`direction` is g / ‖g‖ and `r` is r / ‖g‖, [D]."""
        across, along, scale = [], [], []
        for part, is_truth in ((Noise.of(moments), False), (Noise.of(reference), True)):
            if part is None:
                continue
            (scatter,) = part.scatters  # [J, D]
            own = scatter @ direction  # [J]
            rest = scatter - own.unsqueeze(1) * direction
            turned = rest @ r  # [J], what s gains where g turns towards r
            across.append(-c * rest if is_truth else rest)
            along.append(turned if is_truth else own)
            scale.append(turned - c * own if is_truth else own)
        columns = (torch.cat(each).numpy() for each in (across, along, scale))
        return cls(*columns, tuple(len(each) for each in along))

    def is_rounding(self, total: float) -> bool:
        """Whether r has no noise beyond the rounding of a total variance."""
        return float(np.square(self.across).sum()) <= _ROUNDING**2 * total


Polynomial = tuple[float, ...]  # coefficients, the constant first


def _value(polynomial: Polynomial, q: float) -> float:
    total = 0.0
    for coefficient in reversed(polynomial):
        total = total * q + coefficient
    return max(total, 0.0)  # rounding may leave less than nothing


class _Noise(NamedTuple):
    """The noise of δr − q e δs: tr Σ, tr Σ² and the variance κ along e, as polynomials in q."""

    t1: Polynomial
    t2: Polynomial
    kappa: Polynomial
    coordinates: int  # D

    @classmethod
    def of(cls, split: _Split, direction: np.ndarray, sign: float) -> "_Noise":
        """For a direction e [D] of r, and the sign of s.

        tr Σ² is corrected for the number of batches as in `Noise`.
        """
        a, u = sign * split.along, split.across @ direction  # [J] each
        mixed = np.outer(a, u)
        gram = (split.across @ split.across.T, -mixed - mixed.T, np.outer(a, a))  # [J, J] each
        weight, t2, stop = np.ones_like(mixed), np.zeros(5), 0
        for batches in split.parts:
            own = slice(stop, stop + batches)
            stop += batches
            freedom = batches - 1
            weight[own, own] = freedom / (freedom - 1)
            trace = [np.trace(each[own, own]) for each in gram]
            t2 -= np.convolve(trace, trace) / (freedom - 1)
        for i, one in enumerate(gram):
            for j, other in enumerate(gram):
                t2[i + j] += (weight * one * other).sum()
        t1 = tuple(float(np.trace(each)) for each in gram)
        kappa = (float(u @ u), -2 * float(a @ u), float(a @ a))
        return cls(t1, tuple(t2.tolist()), kappa, len(direction))

    def at(self, q: float, most: float = math.inf) -> tuple[float, float, float]:
        """tr Σ, tr Σ² and κ at q; where tr Σ exceeds `most`, the first two are those at q = 0."""
        t1, kappa = _value(self.t1, q), _value(self.kappa, q)
        start = 0.0 if t1 > most else q
        t1, t2 = _value(self.t1, start), _value(self.t2, start)
        return t1, max(t2, min(kappa, t1) ** 2, t1**2 / self.coordinates), kappa


class _Angle(NamedTuple):
    """The test of ρ, the sine of the angle between the mean and g."""

    x: float  # ‖r‖²
    s: float  # |s|
    below: _Noise  # for the lower end
    above: _Noise  # for the upper end: as in `bias`, along r moved the other way
    freedom: float

    @classmethod
    def of(cls, split: _Split, noise: Noise, exact: Tensor, r: Tensor, s: float) -> "_Angle":
        quantile = float(t_isf(MISSED / 2, noise.batches - 1))
        length, sign = float(r.norm()), float(np.sign(s))
        e = r.numpy() / length if length > 0 else np.zeros(len(r))
        u = split.across @ e
        error = float(np.linalg.norm(u))
        moved = r.numpy() + (quantile * (u @ split.across) / error if error > 0 else 0.0)
        moved /= np.linalg.norm(moved) or 1.0
        below, above = (_Noise.of(split, each, sign) for each in (e, moved))
        return cls(length**2, abs(s), below, above, cls._freedom(split, noise, exact, r, below))

    @staticmethod
    def _freedom(split: _Split, noise: Noise, exact: Tensor, r: Tensor, across: _Noise) -> float:
        """The degrees of freedom, of the noise without an r and of that along r, by their shares.

        The first is the total noise, known from all replicates, less that along g.  It is never
        less certain than the batches alone would make it.
        """
        fewest, most = noise.batches - 1, noise.replicates - 1
        t1, t2, kappa = across.at(0.0)
        along = float(np.square(split.along).sum())
        of_total = 1 / most + noise.correlated_share(exact) * (along / t1) ** 2 / fewest
        of_total = min(of_total, t2 / t1**2 / fewest)
        beta = max(float(r.square().sum()) - t1, 0.0)
        due = 4 * kappa * beta / (2 * t2 + 4 * kappa * beta)
        return 1 / ((1 - due) * of_total + due / _freedom(noise, r))

    def interval(self) -> Interval:
        least = self.below.t1[0]
        above = self._upper(max(self.x, least))
        low = max(self._lower(MISSED / 2), min(self._lower(MISSED), self._upper(least)))
        t1, _, _ = self.below.at(_tangent(min(self._sine(self.x), _LARGEST)), least)
        return Interval(self._sine(max(self.x - t1, 0.0)), low, above)

    def _sine(self, square: float) -> float:
        """ρ of an r with this square of its length."""
        total = float(np.hypot(square**0.5, self.s))
        return square**0.5 / total if total > 0 else 1.0

    def _upper(self, x: float) -> float:
        """The ρ for which an x this small has a probability of 2.5 %."""
        least = self.above.t1[0]
        return self._inverse(x, MISSED / 2, lambda q: self.above.at(q, least))

    def _lower(self, missed: float) -> float:
        """The ρ for which an x this large has the probability `missed`, or 0."""
        return self._inverse(self.x, 1 - missed, self.below.at)

    def _inverse(
        self, x: float, level: float, noise: Callable[[float], tuple[float, float, float]]
    ) -> float:
        """The ρ for which the probability of at most x is `level`."""
        one_sided = BiasDistribution(0.0, 0.0, 0.0, 0.0, self.freedom).tail(min(level, 1 - level))
        level = one_sided if level < 0.5 else 1 - one_sided

        def excess(sine: float) -> float:
            q = _tangent(sine)
            return _probability(x, (q * self.s) ** 2, *noise(q)) - level

        if excess(0.0) <= 0:
            return 0.0
        if excess(_LARGEST) >= 0:
            return 1.0
        return float(scipy.optimize.brentq(excess, 0.0, _LARGEST, xtol=1e-14, rtol=1e-10))


def _tangent(sine: float) -> float:
    return sine / (1 - sine**2) ** 0.5


def _probability(x: float, beta: float, t1: float, t2: float, kappa: float) -> float:
    """The probability of ‖r‖² ≤ x for a squared length of β."""
    if t2 + 2 * kappa * beta <= (_ROUNDING * (t1 + beta)) ** 2:
        return float(x >= t1 + beta)  # no noise
    return BiasDistribution(t1, t2, kappa, kappa, 1.0).probability(x, beta, kappa)
