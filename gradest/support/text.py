"""Text from outside gradest, made safe to print and to write whatever it contains."""

import difflib
import math
import traceback
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_LONGEST_NAME = 100  # characters that are compared with other names, in quadratic time
_LONGEST = 80  # characters of a value in a message
_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 2_000, 20_000  # characters of an error in a record
_REVERSING = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def shortened(value: Any, longest: int = _LONGEST) -> str:
    """`repr(value)` on one line, with the middle left out if it is long.

    Only the beginning of large data is read.

    >>> shortened("a" * 100, 20)
    "'aaaaaaaa ... aaaaa'"
    """
    text = in_a_line(_beginning(value, 4 * longest))
    if len(text) <= longest:
        return text
    head = (longest - 5) * 3 // 5
    return f"{text[:head]} ... {text[len(text) - (longest - 5 - head) :]}"


def suggestion(name: str, available: Iterable[str]) -> str:
    """The end of an error message: the most similar name, or else all available ones."""
    available = sorted(available)
    near = difflib.get_close_matches(str(name)[:_LONGEST_NAME], available, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; available: {', '.join(available) or 'none'}"


def printable(text: str) -> str:
    r"""The text with control characters and characters that cannot be encoded escaped, as `\x1b`.

    They could move the cursor or reverse the direction of reading.  Line breaks and tabs stay.
    """
    return "".join(c if _harmless(c) else _escaped(c) for c in text)


def in_a_line(text: str) -> str:
    r"""The printable text on one line: line breaks and tabs become spaces.

    >>> in_a_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    return " ".join(printable(text).split())


def message_of(error: BaseException) -> str:
    """The message of an error; empty if it has none."""
    try:
        # str.__str__ makes a plain str: `__str__` of foreign code may return a subclass.
        return printable(str.__str__(str(error))[: _LONGEST_MESSAGE + 1])
    except BaseException as inner:  # `__str__` of foreign code may even raise SystemExit
        return f"its message cannot be read: {type(inner).__name__}"


def reason_of(error: BaseException) -> str:
    """The type of an error, its message and its notes."""
    message, kind = message_of(error), type(error).__name__
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    text = "; ".join([f"{kind}: {message}" if message else kind, *notes])
    return printable(_cut(text, _LONGEST_MESSAGE))


def described(error: BaseException) -> str:
    """The type of an error and its message on one line."""
    return in_a_line(reason_of(error))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """A number with its noun in the singular or the plural.

    >>> counted(1, "cell"), counted(2_000, "cell")
    ('1 cell', '2,000 cells')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # any attribute of a foreign error may raise
        text = "the traceback cannot be formatted"
    return printable(_cut(text, _LONGEST_TRACEBACK))


def _beginning(value: Any, longest: int) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= longest else f"{value[:longest]}{value[-longest:]}")
    if isinstance(value, int) and value.bit_length() > 4 * longest:
        # Python refuses to write out very large integers.
        return f"an integer of about {round(math.log10(abs(value)))} digits"
    if isinstance(value, list | tuple) and len(value) > longest:
        return f"{_beginning(list(value[:longest]), longest)[:-1]}, ...]"
    if isinstance(value, dict) and len(value) > longest:
        first = dict(list(value.items())[:longest])
        return f"{_beginning(first, longest)[:-1]}, ...}}"
    try:
        return repr(value)
    except Exception:  # a faulty `__repr__` must not hide the error that is being reported
        return f"a {type(value).__name__}"


def _cut(text: str, longest: int) -> str:
    """The text, shortened to its beginning and an ellipsis if it is longer."""
    return f"{text[:longest]}…" if len(text) > longest else text


def _harmless(c: str) -> bool:
    return c in "\n\t" or (c not in _REVERSING and unicodedata.category(c) not in ("Cc", "Cs"))


def _escaped(c: str) -> str:
    return c.encode("ascii", "backslashreplace").decode() if c > "\x7f" else f"\\x{ord(c):02x}"
