"""Text that comes from elsewhere, as one line of a message can show it."""

import math
from typing import Any

_LONGEST = 80  # characters of a value that are shown


def shortened(value: Any, longest: int = _LONGEST) -> str:
    """`repr(value)`, cut in the middle where it is long; of large data only the beginning is read.

    >>> shortened("a" * 100, 20)
    "'aaaaaaaa ... aaaaa'"
    """
    text = _begun(value, 4 * longest)
    if len(text) <= longest:
        return text
    head = (longest - 5) * 3 // 5
    return f"{text[:head]} ... {text[len(text) - (longest - 5 - head) :]}"


def one_line(text: str) -> str:
    r"""The text with everything escaped that is not printable: line breaks, ESC, lone surrogates.

    >>> one_line("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def described(error: BaseException) -> str:
    """`Type: message` on one line, also of an exception whose message cannot be had."""
    kind = type(error).__name__
    try:
        message = " ".join(str(error).split())
    except Exception as second:  # a plugin's own `__str__`, which must not hide what it is about
        message = f"its message cannot be shown ({type(second).__name__})"
    return one_line(f"{kind}: {message}" if message else kind)


def _begun(value: Any, longest: int) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= longest else f"{value[:longest]}{value[-longest:]}")
    if isinstance(value, int) and value.bit_length() > 4 * longest:
        # By its logarithm: Python refuses to write out the largest.
        return f"a number of some {round(math.log10(abs(value)))} digits"
    if isinstance(value, list | tuple) and len(value) > longest:
        return f"{_begun(list(value[:longest]), longest)[:-1]}, ...]"
    if isinstance(value, dict) and len(value) > longest:
        first = dict(list(value.items())[:longest])
        return f"{_begun(first, longest)[:-1]}, ...}}"
    return repr(value)
