"""What adapting buys: the variance of one estimate as the steps go by."""

from typing import NamedTuple

from gradest.inference import total_variance
from gradest.measuring.progress import phase
from gradest.measuring.replicator import Replicator

_REPLICATES = 2048  # of a look at the variance


class Look(NamedTuple):
    """The variance of one estimate after so many steps, and its interval."""

    step: int
    variance: float
    low: float
    high: float


def adapted(replicator: Replicator, steps: int, chunk: int) -> list[Look]:
    """Let the estimator adapt, and look at its variance with respect to log α on the way.

    At the start, after each power of four and at the end; nothing where there are no steps.  Each
    look is at fresh draws, and changes no state.
    """
    if steps == 0:
        return []
    with phase("adapting", steps):
        looks, done = [_look(replicator, 0, chunk)], 0
        for stop in [*_powers_of_four(steps), steps]:
            replicator.adapt(stop - done)
            done = stop
            looks.append(_look(replicator, done, chunk))
    return looks


def _powers_of_four(end: int) -> list[int]:
    return [4**i for i in range(end.bit_length()) if 4**i < end]


def _look(replicator: Replicator, step: int, chunk: int) -> Look:
    seen = total_variance(replicator.moments(_REPLICATES, chunk))
    return Look(step, seen.estimate, seen.low, seen.high)
