"""Text that comes from elsewhere, as it can be written and shown whatever it holds."""

import math
import traceback
import unicodedata
from typing import Any

_LONGEST = 80  # characters of a value that are shown
_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 2_000, 20_000  # and of what is recorded of an error
_REVERSING = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def shortened(value: Any, longest: int = _LONGEST) -> str:
    """`repr(value)` in a line, cut in the middle where it is long.

    Of large data only the beginning is read.

    >>> shortened("a" * 100, 20)
    "'aaaaaaaa ... aaaaa'"
    """
    text = in_a_line(_begun(value, 4 * longest))
    if len(text) <= longest:
        return text
    head = (longest - 5) * 3 // 5
    return f"{text[:head]} ... {text[len(text) - (longest - 5 - head) :]}"


def printable(text: str) -> str:
    r"""The text with escapes in place of what could move a cursor, reverse the reading or not be
    encoded: `\x1b` for the control character.  Ends of lines and tabs stay.
    """
    return "".join(c if _harmless(c) else _escaped(c) for c in text)


def in_a_line(text: str) -> str:
    r"""Printable, with a space in place of an end of line or a tab.

    >>> in_a_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    return " ".join(printable(text).split())


def message_of(error: BaseException) -> str:
    """Its message, as far as there is one."""
    try:
        # Exactly of type str: what `__str__` returns may be code from elsewhere as well.
        return printable(str.__str__(str(error))[: _LONGEST_MESSAGE + 1])
    except BaseException as inner:  # SystemExit as well: whatever `__str__` does, it is reported
        return f"its message cannot be read: {type(inner).__name__}"


def reason_of(error: BaseException) -> str:
    """The kind of the error and its message."""
    message, kind = message_of(error), type(error).__name__
    return printable(_cut(f"{kind}: {message}" if message else kind, _LONGEST_MESSAGE))


def described(error: BaseException) -> str:
    """The reason in a line."""
    return in_a_line(reason_of(error))


def traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # an error may raise whenever it is looked at
        text = "the traceback cannot be formatted"
    return printable(_cut(text, _LONGEST_TRACEBACK))


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
    try:
        return repr(value)
    except Exception:  # code from elsewhere, which must not hide what it is about
        return f"a {type(value).__name__}"


def _cut(text: str, longest: int) -> str:
    """The text, or what it begins with and an ellipsis."""
    return f"{text[:longest]}…" if len(text) > longest else text


def _harmless(c: str) -> bool:
    return c in "\n\t" or (c not in _REVERSING and unicodedata.category(c) not in ("Cc", "Cs"))


def _escaped(c: str) -> str:
    return c.encode("ascii", "backslashreplace").decode() if c > "\x7f" else f"\\x{ord(c):02x}"
