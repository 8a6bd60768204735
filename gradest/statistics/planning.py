"""The number of replicates that a measurement needs, planned from a pilot on draws of its own.

There are two stages, as in

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", 1945,

but the pilot only fixes the number.  The measurement uses fresh draws, so that intervals and tests
stay valid; a rule that stops once an interval is narrow would favour those that are so by chance
(Glynn & Whitt, "The asymptotic validity of sequential stopping rules for stochastic
simulations", 1992).
"""

import math

from torch import Tensor

from gradest.statistics.bias import squared_bias
from gradest.statistics.distributions import f_ppf, normal_isf
from gradest.statistics.intervals import MISSED, Interval, total_variance
from gradest.statistics.moments import Moments
from gradest.statistics.reference_noise import Noise
from gradest.statistics.unbiasedness import joint_test
from gradest.statistics.verdicts import BIASED_BELOW, UNBIASED_WITHIN

_BATCHES = 64  # of the measurement that is planned
_REACHED = 0.975  # of measurements with normal batches; 95 % are promised, for any tails
_EVENTS = 20  # outcomes of the largest size, below which a mean is not close to normal
_MOST = 2**50
_FURTHER = 2**10  # times the replicates, above which no number that would decide is reported


def variance_precision(variance: Interval) -> float:
    """The distance from the estimate to the upper end, relative to the estimate."""
    return variance.high / variance.estimate - 1 if variance.high > variance.low else 0.0


def bias_precision(bias: Interval, gradient_norm: float) -> float:
    """The largest distance of ‖bias‖ to an end, relative to the larger of ‖bias‖ and ‖g‖."""
    low, norm, high = (max(b, 0.0) ** 0.5 for b in (bias.low, bias.estimate, bias.high))
    size = max(gradient_norm, norm)
    if bias.high == bias.low:
        return 0.0
    return max(high - norm, norm - low) / size if size > 0 else float("inf")


def replicates_needed(
    pilot: Moments,
    exact: Tensor | None,
    weight: Tensor,
    peak: float,
    variance: float | None = None,
    bias: float | None = None,
    reference: Moments | None = None,
    unseen: float = 0.0,
) -> int:
    """The R for which `variance_precision` and `bias_precision` are likely below these targets.

    Where a `bias` is requested and the pilot's interval lies above the margin of *unbiased*, R also
    makes the joint test likely to reject, so that test and interval agree.  The largest outcome for
    which the test allows is `peak`, or `unseen` if that is larger.

    The pilot's spread is that of J − 1 batches and the measurement's own of 63: the ratio of their
    squares follows an F distribution.  The pilot's is multiplied by the 97.5 % quantile, so that
    95 % of the measurements reach the targets.  With fewer than twenty outcomes of the largest size
    the spread of a pilot is not reliable, so R is large enough for twenty of them.

    Where no number is enough, as for a bias with ‖g‖ = 0, it is 2⁵⁰.
    """
    replicates = float(pilot.count.sum())
    if replicates == 1:
        return 1
    scaled = pilot.scaled(weight)
    margin = float(f_ppf(_REACHED, _BATCHES - 1, len(pilot.count) - 1))
    if reference is not None:
        reference = reference.scaled(weight)

    largest = max(peak, unseen)
    certain = bias is not None and _beyond_margin(scaled, exact * weight, reference)

    def reached(number: int) -> bool:
        expected = _with_more_replicates(scaled, number / replicates / margin)
        if variance is not None and variance_precision(total_variance(expected)) > variance:
            return False
        if bias is None:
            return True
        if _bias_precision(scaled, expected, exact * weight, reference) > bias:
            return False
        return not certain or _test_rejects(scaled, expected, exact * weight, largest, reference)

    most = int(replicates)
    while not reached(most):
        most *= 2
        if most > _MOST:
            return _MOST
    least = 1
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if reached(middle) else (middle + 1, most)
    # Twenty outcomes of the size that occurred: larger ones may never occur.
    noisiest = float((pilot.pooled.m2 / (replicates - 1)).max())
    return max(most, int(_EVENTS * peak**2 / noisiest) if noisiest > 0 else 1)


def replicates_to_decide(
    moments: Moments,
    exact: Tensor,
    weight: Tensor,
    peak: float,
    rounding: float,
    reference: Moments | None,
) -> int | None:
    """The number of replicates with which the joint test would reject for the same means.

    None where a thousand times as many are not enough.
    """
    replicates, times = float(moments.count.sum()), 2
    while times <= _FURTHER:
        expected = _with_more_replicates(moments, times)
        test = joint_test(expected, exact, weight, peak, rounding, BIASED_BELOW, reference)
        if test.p_value < BIASED_BELOW:
            return int(times * replicates)
        times *= 2
    return None


def _beyond_margin(pilot: Moments, exact: Tensor, reference: Moments | None) -> bool:
    """Whether the pilot's interval of the bias lies above the margin of *unbiased*."""
    low = squared_bias(pilot, exact, reference).low
    return max(low, 0.0) ** 0.5 > UNBIASED_WITHIN * float(exact.norm())


def _test_rejects(
    pilot: Moments, expected: Moments, exact: Tensor, peak: float, reference: Moments | None
) -> bool:
    """Whether the joint test rejects at the lower end of the bias, for an unlucky deviation."""
    noise = Noise.of(expected, reference)
    if noise is None:  # of fewer than two replicates, which show nothing
        return False
    deviation = pilot.pooled.mean[0] - exact
    towards = deviation / deviation.norm()
    error = float(normal_isf(MISSED / 2)) * noise.along(towards) ** 0.5
    length = max(squared_bias(pilot, exact, reference).low, 0.0) ** 0.5 - error
    truth = expected.pooled.mean[0] - towards * max(length, 0.0)
    one = exact.new_ones(len(exact))
    test = joint_test(expected, truth, one, peak, 0.0, BIASED_BELOW, reference)
    return test.p_value < BIASED_BELOW


def _with_more_replicates(moments: Moments, times: float) -> Moments:
    """The moments to expect from `times` as many replicates: the same, but with less spread.

    The variances between batches, of means and of squares, are smaller by that factor.
    """
    shrunk = times**-0.5
    centre, count = moments.pooled.mean, moments.count.unsqueeze(1)  # [1, D], [J, 1]
    between = count * (moments.mean - centre).square()
    squares = moments.m2 + between  # [J, D]
    average = squares.sum(0) * count / count.sum()
    m2 = times * (average + (squares - average) * shrunk) - between
    mean = centre + (moments.mean - centre) * shrunk
    return Moments(moments.count * times, mean, m2.clamp(min=0))


def _bias_precision(
    pilot: Moments, expected: Moments, exact: Tensor, reference: Moments | None
) -> float:
    """The worse precision at the two ends of the bias, for a deviation of typical length."""
    noise = Noise.of(expected, reference)
    if noise is None:  # of fewer than two replicates, which have no interval
        return math.inf
    deviation = pilot.pooled.mean[0] - exact
    length = float(deviation.norm())
    towards = deviation / length if length > 0 else exact.new_full(exact.shape, len(exact) ** -0.5)
    interval = squared_bias(pilot, exact, reference)
    worst = 0.0
    for beta in (interval.low, interval.high):
        truth = expected.pooled.mean[0] - towards * (beta + noise.t1) ** 0.5
        bias = squared_bias(expected, truth, reference)
        worst = max(worst, bias_precision(bias, float(exact.norm())))
    return worst
