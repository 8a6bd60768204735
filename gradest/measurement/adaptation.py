"""The variance of one estimate as the estimator adapts."""

from typing import NamedTuple

from gradest.measurement.progress import phase
from gradest.measurement.replicator import Replicator
from gradest.statistics import total_variance

_REPLICATES = 2048  # by which the variance is measured each time


class AdaptationStep(NamedTuple):
    """The variance of one estimate after a number of adaptation steps, with its interval."""

    step: int
    variance: float
    low: float
    high: float


def adapt_and_measure(replicator: Replicator, steps: int, chunk: int) -> list[AdaptationStep]:
    """Adapt the estimator and measure its variance with respect to log α on the way.

    The variance is measured at the start, after each power of four and at the end, each time with
    fresh draws, which change no state.  Without steps the list is empty.
    """
    if steps == 0:
        return []
    with phase("adapting", steps):
        curve, done = [_measure(replicator, 0, chunk)], 0
        for stop in [*_powers_of_four(steps), steps]:
            replicator.adapt(stop - done)
            done = stop
            curve.append(_measure(replicator, done, chunk))
    return curve


def _powers_of_four(end: int) -> list[int]:
    return [4**i for i in range(end.bit_length()) if 4**i < end]


def _measure(replicator: Replicator, step: int, chunk: int) -> AdaptationStep:
    variance = total_variance(replicator.moments(_REPLICATES, chunk))
    return AdaptationStep(step, variance.estimate, variance.low, variance.high)
