"""How far problems violate a claim, from the two sides of its relation.

    excess = L − R  for L <= R,    |L − R| − t  for L == R +- t,    score = excess/max(|L|, |R|)

A violation counts from a relative size on that no rounding reaches.  Of estimated quantities the
excess must also exceed three standard errors.  A strict claim is searched like its other version:
where nothing varies both sides are equal, which nobody would call a counterexample.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gradest.runs.claims import Number, Quantity, Relation, compute

LEAST = 1e-6  # relative size of a violation
_ERRORS = 3.0  # standard errors that the excess must exceed during a search
# Compared with zero by their squares, which have less bias.
_SQUARED = ("bias", "relative_bias", "relative_bias_rescaled")

Read = Callable[[Quantity], np.ndarray]


class Violation(NamedTuple):
    """The violation of a claim by each of B problems."""

    left: np.ndarray
    right: np.ndarray
    score: np.ndarray  # relative excess less its noise; −1 where nothing can be compared
    errors: np.ndarray  # the excess in standard errors, infinite where it is exact
    unpaired: np.ndarray  # the same, if both sides had noise of their own
    error: np.ndarray  # the standard error of L − R
    exact: bool

    @classmethod
    def merged(cls, parts: Sequence[tuple[np.ndarray, "Violation"]], count: int) -> "Violation":
        """Of `count` problems, from parts with the indices of theirs; −1 where there is none."""
        columns = [np.full(count, np.nan) for _ in cls._fields[:-1]]
        columns[cls._fields.index("score")][:] = -1.0
        for rows, part in parts:
            for column, values in zip(columns, part, strict=False):
                column[rows] = values
        return cls(*columns, exact=all(part.exact for _, part in parts))

    @property
    def best(self) -> int:
        return int(self.score.argmax())


def violation(relation: Relation, read: Read) -> Violation:
    """The violation by B problems, of which `read` gives quantities [1 + J, B] or [1, B]."""
    with np.errstate(all="ignore"):  # what is not finite cannot be compared
        sides = (compute(side, read, _constant) for side in (relation.left, relation.right))
        left, right = np.broadcast_arrays(*sides)
        excess = _excess(relation, left, right)
        largest = np.maximum(np.abs(left[0]), np.abs(right[0]))
        error = _standard_error(excess)
        apart = np.hypot(_standard_error(left), _standard_error(right))
        if against_zero(relation):
            apart, largest = error, np.square(largest)
        score = (excess[0] - _ERRORS * error) / largest
        score = np.where(np.isfinite(score), score, -1.0)
        return Violation(
            *(left[0], right[0], score, excess[0] / error, excess[0] / apart),
            error=_standard_error(left - right),
            exact=len(excess) == 1,
        )


def _constant(value: float) -> np.ndarray:
    return np.full((1, 1), value)


def _excess(relation: Relation, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[1 + J, B], above zero where the claim is violated."""
    if relation.symbol in ("<=", "<"):
        excess = left - right
    elif relation.symbol in (">=", ">"):
        excess = right - left
    else:
        excess = np.abs(left - right)
        if relation.tolerance:
            tolerance = relation.tolerance
            return excess - tolerance.size * (np.abs(right) if tolerance.relative else 1.0)
        if against_zero(relation):  # a squared bias may be estimated below zero
            excess = left - right
    return np.sign(excess) * np.square(excess) if against_zero(relation) else excess


def against_zero(relation: Relation) -> bool:
    """Whether a bias is claimed to be zero."""
    left, right = relation.left, relation.right
    return (
        isinstance(left, Quantity)
        and left.name in _SQUARED
        and right == Number(0.0)
        and relation.tolerance is None
    )


def _standard_error(values: np.ndarray) -> np.ndarray:
    """The standard error of values[0], by the jackknife: [1 + J, B] -> [B]; 0 for exact ones."""
    without = values[1:]
    if not len(without):
        return np.zeros(values.shape[1])
    spread = np.square(without - without.mean(0)).sum(0)
    return np.sqrt((len(without) - 1) / len(without) * spread)
