"""Intervals of numbers in tables, and their arithmetic.

A number `x` of a table has its 95 % interval in the columns `x_low` and `x_high`.  The estimates
that are combined here are independent.  Their distances to the ends that matter add in quadrature
(MOVER): adding the ends themselves would give an interval that is too wide.

Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

ENDS = ("", "_low", "_high")


def columns_of(name: str) -> list[str]:
    """The columns of a number and of the ends of its interval."""
    return [f"{name}{end}" for end in ENDS]


class Interval(NamedTuple):
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Mapping[str, Any], name: str) -> "Interval":
        return cls(*(float(row[column]) for column in columns_of(name)))

    def times(self, factor: float) -> "Interval":
        """Multiplied by an exact, positive number."""
        return Interval(*(factor * end for end in self))

    def clipped(self, least: float) -> "Interval":
        """With `least` in place of everything below it."""
        return Interval(*(max(end, least) for end in self))

    def __sub__(self, other: "Interval") -> "Interval":
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Interval(value, value - below, value + above)

    def __truediv__(self, other: "Interval") -> "Interval":
        """The ratio of two numbers that are not negative, by the logarithms; NaN over zero."""
        if not (other.value > 0 and self.value >= 0):
            return Interval(*[math.nan] * 3)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs, others = np.log(self), np.log(other)
            below = np.hypot(logs[0] - logs[1], others[2] - others[0])
            above = np.hypot(logs[2] - logs[0], others[0] - others[1])
            ratio = self.value / other.value
            return Interval(ratio, float(ratio * np.exp(-below)), float(ratio * np.exp(above)))
