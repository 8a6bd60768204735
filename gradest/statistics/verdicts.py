"""The verdict biased, unbiased or inconclusive, with a note, and tests that are taken together."""

import math
from typing import NamedTuple

import numpy as np

from gradest.statistics.intervals import Interval

BIASED_BELOW = 0.01  # joint p-value below which an estimator is biased
UNBIASED_WITHIN = 0.02  # relative bias that an unbiased estimator is shown not to exceed


class Verdict(NamedTuple):
    """A verdict with its note."""

    word: str
    note: str = ""
    undecided: bool = (
        False  # the interval excludes a bias within the margin, the test rejects nothing
    )

    def with_replicates(self, number: int | None) -> "Verdict":
        """The note with the number of replicates that would decide, where there is one."""
        if number is None:
            return self
        return self._replace(note=f"{self.note}; about {number:,} replicates would decide")


def verdict(
    p_value: float,
    bias: Interval,
    scale: float,
    unresolved: float = 0.0,
    unremarkable: float = 0.0,
) -> Verdict:
    """The verdict from the joint test and the interval of the squared bias.

    *Biased* is the result of the test.  *Unbiased* is an equivalence test, the upper end of the
    interval against 2 % of `scale`: an estimator does not pass by being noisy.  A bias up to
    `unresolved` cannot be distinguished from rounding, and one above `unremarkable` gets a note.
    """
    if p_value < BIASED_BELOW:
        return Verdict("biased")
    margin = UNBIASED_WITHIN * scale
    low, size, high = (math.sqrt(max(end, 0.0)) for end in (bias.low, bias.estimate, bias.high))
    exact = bias.low == bias.high
    if high <= margin:
        note = f"unbiased up to rounding: the relative bias is {_share(size, scale)}"
        return Verdict("unbiased", note if exact and size > unremarkable else "")
    if exact:
        return Verdict(
            "inconclusive",
            f"a relative bias of {_share(size, scale)} cannot be distinguished from rounding, "
            f"which may be up to {_share(unresolved, scale)}",
        )
    if low > margin:
        return Verdict(
            "inconclusive",
            "the interval of the bias excludes 0, but rare outcomes that were not drawn could "
            "explain it",
            undecided=True,
        )
    return Verdict("inconclusive")


def _share(length: float, scale: float) -> str:
    return f"{100 * length / scale:.2g} %" if scale > 0 else f"{length:.2g}"


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values; NaN stands for no test, and stays.

    Of m tests the k-th smallest p is multiplied by m + 1 − k, and none is below one before it.
    Rejecting where the adjusted p is below a level errs at all with at most that probability,
    however the tests depend on each other.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN is sorted last
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
