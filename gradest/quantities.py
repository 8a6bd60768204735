"""Numbers as text: as precise as their intervals, and sorted by what they are."""

import math
from collections.abc import Sequence

_MISSING = "n/a"
_LEAST = 5e-324  # above zero, a part of which is rounded to zero
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Quantity(str):
    """The text of a number, and the number that it is sorted by; NaN where there is none."""

    order: float

    def __new__(cls, text: str, order: float) -> "Quantity":
        found = super().__new__(cls, text)
        found.order = float(order)
        return found


def interval(value: float, low: float, high: float, ends: bool = True) -> Quantity:
    """`0.324 [0.314, 0.334]`: to two significant digits of the interval's width.

    Without `ends` the value alone, as precise as it would be beside them.
    Three significant digits and no brackets where there is no interval or no uncertainty.
    """
    if not math.isfinite(value):
        return number(value)
    width = high - low
    if not math.isfinite(width) or width <= 0:
        return number(value)
    decimals, exponent = _precision((value, low, high), width)
    a, b, c = (_fixed(x, decimals, exponent) for x in (value, low, high))
    return Quantity(f"{a}{f' [{b}, {c}]' if ends else ''}{_power(exponent)}", value)


def between(low: float, high: float) -> Quantity:
    """`0.314–0.334`: the ends alone, as `interval` has them; one number where they are equal."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return number(high)
    decimals, exponent = _precision((low, high), high - low)
    a, b = (_fixed(x, decimals, exponent) for x in (low, high))
    return Quantity(f"({a}–{b}){_power(exponent)}" if exponent else f"{a}–{b}", low)


def plus_minus(value: float, error: float) -> Quantity:
    """`0.1536 ± 0.0062`: to two significant digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    decimals, exponent = _precision((value, error), error)
    text = f"{_fixed(value, decimals, exponent)} ± {_fixed(error, decimals, exponent)}"
    return Quantity(f"({text}){_power(exponent)}" if exponent else text, value)


def number(value: float) -> Quantity:
    """Three significant digits; n/a for what is missing."""
    if math.isnan(value):
        return Quantity(_MISSING, value)
    if math.isinf(value):
        return Quantity("∞" if value > 0 else "-∞", value)
    if value == 0:
        return Quantity("0", value)
    decimals, exponent = _precision((value,), abs(value) / 10)
    return Quantity(_fixed(value, decimals, exponent) + _power(exponent), value)


def count(value: float) -> Quantity:
    """`20,000`; what is no whole number keeps its three digits."""
    whole = math.isfinite(value) and value == int(value)
    return Quantity(f"{int(value):,}", value) if whole else number(value)


def share(value: float) -> Quantity:
    """`12 %`; three significant digits."""
    return Quantity(f"{number(100 * value)} %", value)


def _precision(values: Sequence[float], width: float) -> tuple[int, int]:
    """Decimals, and the power of ten taken out of very large and very small numbers."""
    top = math.floor(math.log10(max(abs(x) for x in values) or width))
    last = max(math.floor(math.log10(width or _LEAST)) - 1, top - 5)
    exponent = 0 if -4 <= top < 6 else top
    return max(exponent - last, 0), exponent


def _fixed(value: float, decimals: int, exponent: int) -> str:
    # In two steps: the power of the very smallest numbers is no number any more.
    scaled = value / 10.0 ** (exponent // 2) / 10.0 ** (exponent - exponent // 2)
    return f"{round(scaled, decimals) + 0.0:.{decimals}f}"


def _power(exponent: int) -> str:
    return f" × 10{str(exponent).translate(_SUPERSCRIPTS)}" if exponent else ""
