"""biased, unbiased or inconclusive, with a note on what the word alone does not say."""

import math
from typing import NamedTuple

from gradest.inference.intervals import Interval

BIASED_BELOW = 0.01  # joint p under which an estimator is called biased
UNBIASED_WITHIN = 0.02  # relative bias that an estimator called unbiased cannot exceed


class Verdict(NamedTuple):
    word: str
    note: str = ""
    undecided: bool = False  # the interval excludes a bias within the margin; the test sees none

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
    """What a test and the interval of the squared bias say together.

    *Biased* is what the test says.  *Unbiased* is an equivalence test, the upper end of the
    interval against 2 % of `scale`: a noisy estimator does not pass by being noisy.  A bias up to
    `unresolved` is not told from rounding, and one above `unremarkable` is noted.
    """
    if p_value < BIASED_BELOW:
        return Verdict("biased")
    margin = UNBIASED_WITHIN * scale
    low, size, high = (math.sqrt(max(end, 0.0)) for end in (bias.low, bias.estimate, bias.high))
    exact = bias.low == bias.high
    if high <= margin:
        noted = exact and size > unremarkable
        told = f"unbiased up to rounding: the relative bias is {_share(size, scale)}"
        return Verdict("unbiased", told if noted else "")
    if exact:
        told = f"a relative bias of {_share(size, scale)} cannot be told from rounding, which may "
        return Verdict("inconclusive", f"{told}be {_share(unresolved, scale)}")
    if low > margin:
        return Verdict(
            "inconclusive",
            "the interval of the bias excludes 0, but outcomes too rare to have been drawn could "
            "explain it",
            undecided=True,
        )
    return Verdict("inconclusive")


def _share(length: float, scale: float) -> str:
    return f"{100 * length / scale:.2g} %" if scale > 0 else f"{length:.2g}"
