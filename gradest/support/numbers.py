"""Numbers as text: as precise as their intervals, and sorted by their value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_MISSING = "n/a"
_LEAST = 5e-324  # above zero, a part of which is rounded to zero
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Parts:
    """A number, and how it is written.

    `low` and `high` are the ends of its interval and `error` is its standard error, where they are
    shown.  Each is written with so many `decimals` after a power of ten with this `exponent` is
    taken out; no decimals say that the number is missing or infinite.
    """

    value: float
    decimals: int | None = None
    exponent: int = 0
    low: float = math.nan
    high: float = math.nan
    error: float = math.nan
    grouped: bool = False  # digits in groups of three, as in `20,000`
    before: str = ""  # text around the number
    after: str = ""

    def mantissa(self, x: float) -> str:
        """`x`, one of the numbers of this quantity, without its power of ten."""
        if self.decimals is None:
            raise ValueError(f"{x} has no digits")
        return f"{int(x):,}" if self.grouped else _fixed(x, self.decimals, self.exponent)


class Quantity(str):
    """The plain text of a number, with the parts that other formats render.

    `order` is the number that it is sorted by, NaN where there is none; a format that can show
    text in bold does so where it is `strong`.
    """

    parts: Parts
    order: float
    strong: bool

    def __new__(
        cls, text: str, parts: Parts, order: float | None = None, strong: bool = False
    ) -> "Quantity":
        quantity = super().__new__(cls, text)
        quantity.parts, quantity.strong = parts, strong
        quantity.order = float(parts.value if order is None else order)
        return quantity

    def surrounded(self, before: str = "", after: str = "") -> "Quantity":
        """The same number with text around it."""
        parts = replace(
            self.parts, before=f"{before}{self.parts.before}", after=f"{self.parts.after}{after}"
        )
        return Quantity(f"{before}{self}{after}", parts, self.order, self.strong)

    def sorted_by(self, order: float) -> "Quantity":
        return Quantity(str(self), self.parts, order, self.strong)

    def in_bold(self) -> "Quantity":
        return Quantity(str(self), self.parts, self.order, True)


def interval(value: float, low: float, high: float, *, ends: bool = True) -> Quantity:
    """`0.324 [0.314, 0.334]`: to two significant digits of the interval's width.

    Without `ends` the value alone, as precise as it would be with them.
    Three significant digits and no brackets without an interval or without uncertainty.
    """
    if not math.isfinite(value):
        return number(value)
    width = high - low
    if not math.isfinite(width) or width <= 0:
        return number(value)
    decimals, exponent = _precision((value, low, high), width)
    a, b, c = (_fixed(x, decimals, exponent) for x in (value, low, high))
    if not ends:
        return Quantity(f"{a}{_power(exponent)}", Parts(value, decimals, exponent))
    text = f"{a} [{b}, {c}]{_power(exponent)}"
    return Quantity(text, Parts(value, decimals, exponent, low, high))


def between(low: float, high: float) -> Quantity:
    """`0.314–0.334`: the ends alone, as `interval` has them; one number where they are equal."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return number(high)
    decimals, exponent = _precision((low, high), high - low)
    a, b = (_fixed(x, decimals, exponent) for x in (low, high))
    text = f"({a}–{b}){_power(exponent)}" if exponent else f"{a}–{b}"
    return Quantity(text, Parts(low, decimals, exponent, low, high))


def plus_minus(value: float, error: float) -> Quantity:
    """`0.1536 ± 0.0062`: to two significant digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    decimals, exponent = _precision((value, error), error)
    text = f"{_fixed(value, decimals, exponent)} ± {_fixed(error, decimals, exponent)}"
    text = f"({text}){_power(exponent)}" if exponent else text
    return Quantity(text, Parts(value, decimals, exponent, error=error))


def number(value: float) -> Quantity:
    """Three significant digits; n/a for a missing number."""
    if math.isnan(value):
        return Quantity(_MISSING, Parts(value))
    if math.isinf(value):
        return Quantity("∞" if value > 0 else "-∞", Parts(value))
    if value == 0:
        return Quantity("0", Parts(value, 0))
    decimals, exponent = _precision((value,), abs(value) / 10)
    text = _fixed(value, decimals, exponent) + _power(exponent)
    return Quantity(text, Parts(value, decimals, exponent))


def stated(value: float) -> Quantity:
    """All significant digits of a number that is known exactly, up to six; n/a if it is missing."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    digits, _, _ = f"{abs(value):.5e}".partition("e")
    significant = len(digits.rstrip("0").replace(".", ""))
    decimals, exponent = _precision((value,), abs(value) * 10.0 ** (2 - significant))
    text = _fixed(value, decimals, exponent) + _power(exponent)
    return Quantity(text, Parts(value, decimals, exponent))


def measured(value: float, low: float, high: float) -> Quantity:
    """A number with its interval, or with all its digits where it is exact."""
    return stated(value) if low == high else interval(value, low, high)


def count(value: float) -> Quantity:
    """`20,000`; a number that is not whole keeps three digits."""
    whole = math.isfinite(value) and value == int(value)
    return Quantity(f"{int(value):,}", Parts(value, 0, grouped=True)) if whole else number(value)


def share(value: float) -> Quantity:
    """`12 %`; three significant digits."""
    return number(100 * value).surrounded(after=" %")


def _precision(values: Sequence[float], width: float) -> tuple[int, int]:
    """Decimals, and the power of ten taken out of very large and very small numbers."""
    top = math.floor(math.log10(max(abs(x) for x in values) or width))
    last = max(math.floor(math.log10(width or _LEAST)) - 1, top - 5)
    exponent = 0 if -4 <= top < 6 else top
    return max(exponent - last, 0), exponent


def _fixed(value: float, decimals: int, exponent: int) -> str:
    # In two steps: the power of the very smallest numbers underflows to zero.
    scaled = value / 10.0 ** (exponent // 2) / 10.0 ** (exponent - exponent // 2)
    return f"{round(scaled, decimals) + 0.0:.{decimals}f}"


def _power(exponent: int) -> str:
    return f" × 10{str(exponent).translate(_SUPERSCRIPTS)}" if exponent else ""
