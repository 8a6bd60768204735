"""How many replicates a measurement needs: from a pilot, on draws of its own.

Two stages as those of

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", 1945,

but the pilot only fixes the number.  What is then measured are fresh draws, so that intervals and
tests stay valid; a rule that stopped once an interval is narrow would favour those that are so by
luck (Glynn & Whitt, "The asymptotic validity of sequential stopping rules for stochastic
simulations", 1992).
"""

from scipy import stats
from torch import Tensor

from gradest.inference.bias import squared_bias
from gradest.inference.intervals import MISSED, Interval, total_variance
from gradest.inference.joint import joint_test
from gradest.inference.noise import Noise
from gradest.inference.verdicts import BIASED_BELOW, UNBIASED_WITHIN
from gradest.moments import Moments

_BATCHES = 64  # of the measurement that is planned
_REACHED = 0.975  # by normal batches; 95 % of the measurements are promised, whatever their tails
_EVENTS = 20  # outcomes of the largest size, below which a mean is not close to normal
_MOST = 2**50
_FURTHER = 2**10  # times the replicates, beyond which no number is named that would decide


def variance_precision(variance: Interval) -> float:
    """How far the upper end is from the estimate, relative to it."""
    return variance.high / variance.estimate - 1 if variance.high > variance.low else 0.0


def bias_precision(bias: Interval, gradient_norm: float) -> float:
    """How far ‖bias‖ may be from its estimate, relative to it or to ‖g‖, whichever is larger."""
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
    """R with which `variance_precision` and `bias_precision` are likely to be below these targets.

    Where a `bias` is asked for and the pilot's interval leaves none within the margin of
    *unbiased*, R also makes the joint test likely to reject, so that test and interval agree.  The
    largest outcome that the test is to allow for is `peak`, or `unseen` if that is larger.

    The pilot's spread is that of J − 1 batches and the measurement's own of 63: the ratio of their
    squares follows an F law.  The pilot's is taken times the 97.5 % quantile, so that 95 % of the
    measurements reach the targets.  A pilot that drew fewer than twenty outcomes of the largest
    size knows little of its own spread, so the measurement is to draw as many.

    Where no number is enough, as for a bias where ‖g‖ = 0, it is 2⁵⁰.
    """
    replicates = float(pilot.count.sum())
    if replicates == 1:
        return 1
    scaled = pilot.scaled(weight)
    margin = float(stats.f.ppf(_REACHED, _BATCHES - 1, len(pilot.count) - 1))
    if reference is not None:
        reference = reference.scaled(weight)

    largest = max(peak, unseen)
    certain = bias is not None and _beyond_margin(scaled, exact * weight, reference)

    def reached(number: int) -> bool:
        seen = _repeated(scaled, number / replicates / margin)
        if variance is not None and variance_precision(total_variance(seen)) > variance:
            return False
        if bias is None:
            return True
        if _bias_precision(scaled, seen, exact * weight, reference) > bias:
            return False
        return not certain or _rejected(scaled, seen, exact * weight, largest, reference)

    most = int(replicates)
    while not reached(most):
        most *= 2
        if most > _MOST:
            return _MOST
    least = 1
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if reached(middle) else (middle + 1, most)
    # Twenty of what was seen: what was not may never come.
    noisiest = float((pilot.pooled().m2 / (replicates - 1)).max())
    return max(most, int(_EVENTS * peak**2 / noisiest) if noisiest > 0 else 1)


def replicates_to_decide(
    moments: Moments,
    exact: Tensor,
    weight: Tensor,
    peak: float,
    rounding: float,
    reference: Moments | None,
) -> int | None:
    """So many replicates that the joint test would reject if they showed the same means.

    None where a thousand times as many would not do.
    """
    replicates, times = float(moments.count.sum()), 2
    while times <= _FURTHER:
        seen = _repeated(moments, times)
        test = joint_test(seen, exact, weight, peak, rounding, BIASED_BELOW, reference)
        if test.p_value < BIASED_BELOW:
            return int(times * replicates)
        times *= 2
    return None


def _beyond_margin(pilot: Moments, exact: Tensor, reference: Moments | None) -> bool:
    """Whether the pilot's interval of the bias lies above the margin of *unbiased*."""
    low = squared_bias(pilot, exact, reference).low
    return max(low, 0.0) ** 0.5 > UNBIASED_WITHIN * float(exact.norm())


def _rejected(
    pilot: Moments, seen: Moments, exact: Tensor, peak: float, reference: Moments | None
) -> bool:
    """Whether the joint test rejects at the lower end of what the bias may be, with bad luck."""
    noise = Noise.of(seen, reference)
    deviation = pilot.pooled().mean[0] - exact
    towards = deviation / deviation.norm()
    luck = float(stats.norm.isf(MISSED / 2)) * noise.along(towards) ** 0.5
    length = max(squared_bias(pilot, exact, reference).low, 0.0) ** 0.5 - luck
    truth = seen.pooled().mean[0] - towards * max(length, 0.0)
    one = exact.new_ones(len(exact))
    return joint_test(seen, truth, one, peak, 0.0, BIASED_BELOW, reference).p_value < BIASED_BELOW


def _repeated(moments: Moments, times: float) -> Moments:
    """What so many times the replicates are likely to show: the same, but less spread.

    Means, and squares about the common mean, are as many times nearer to each other.
    """
    shrunk = times**-0.5
    centre, count = moments.pooled().mean, moments.count.unsqueeze(1)  # [1, D], [J, 1]
    apart = count * (moments.mean - centre).square()
    squares = moments.m2 + apart  # [J, D]
    usual = squares.sum(0) * count / count.sum()
    m2 = times * (usual + (squares - usual) * shrunk) - apart
    mean = centre + (moments.mean - centre) * shrunk
    return Moments(moments.count * times, mean, m2.clamp(min=0))


def _bias_precision(
    pilot: Moments, seen: Moments, exact: Tensor, reference: Moments | None
) -> float:
    """At either end of what the bias may be, with a deviation that is neither lucky nor not."""
    noise = Noise.of(seen, reference)
    deviation = pilot.pooled().mean[0] - exact
    length = float(deviation.norm())
    towards = deviation / length if length > 0 else exact.new_full(exact.shape, len(exact) ** -0.5)
    interval = squared_bias(pilot, exact, reference)
    worst = 0.0
    for beta in (interval.low, interval.high):
        truth = seen.pooled().mean[0] - towards * (beta + noise.t1) ** 0.5
        found = squared_bias(seen, truth, reference)
        worst = max(worst, bias_precision(found, float(exact.norm())))
    return worst
