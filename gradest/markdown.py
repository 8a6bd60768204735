"""Text for Markdown: what plugins say is escaped, numbers are as precise as their intervals."""

import math
import re
from collections.abc import Sequence

from tabulate import tabulate

_MISSING = "n/a"
_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def escape(text: object) -> str:
    """One line of plain text that Markdown and HTML show as it is, also inside a table.

    An underscore inside a word is left alone: it is literal there, and names stay searchable.
    """
    line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", line.translate(_ENTITIES))


def code_block(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A pipe table of texts; the first `left` columns are aligned to the left."""
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def interval(value: float, low: float, high: float, ends: bool = True) -> str:
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
    return f"{a}{f' [{b}, {c}]' if ends else ''}{_power(exponent)}"


def plus_minus(value: float, error: float) -> str:
    """`0.1536 ± 0.0062`: to two significant digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    decimals, exponent = _precision((value, error), error)
    text = f"{_fixed(value, decimals, exponent)} ± {_fixed(error, decimals, exponent)}"
    return f"({text}){_power(exponent)}" if exponent else text


def number(value: float) -> str:
    """Three significant digits; n/a for what is missing."""
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    decimals, exponent = _precision((value,), abs(value) / 10)
    return _fixed(value, decimals, exponent) + _power(exponent)


def count(value: float) -> str:
    """`20,000`; what is no whole number keeps its three digits."""
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else number(value)


def share(value: float) -> str:
    """`12 %`; three significant digits."""
    return f"{number(100 * value)} %"


def _precision(values: Sequence[float], width: float) -> tuple[int, int]:
    """Decimals, and the power of ten taken out of very large and very small numbers."""
    top = math.floor(math.log10(max(abs(x) for x in values) or width))
    last = max(math.floor(math.log10(width)) - 1, top - 5)
    exponent = 0 if -4 <= top < 6 else top
    return max(exponent - last, 0), exponent


def _fixed(value: float, decimals: int, exponent: int) -> str:
    return f"{round(value / 10.0**exponent, decimals) + 0.0:.{decimals}f}"


def _power(exponent: int) -> str:
    return f" × 10{str(exponent).translate(_SUPERSCRIPTS)}" if exponent else ""
