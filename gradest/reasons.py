"""What went wrong, as text that can be written and shown whatever code from elsewhere raises."""

import traceback
import unicodedata

_LONGEST, _LONGEST_TRACEBACK = 2_000, 20_000  # characters
_REVERSING = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def reason_of(error: BaseException) -> str:
    """The kind of the error and its message."""
    message = message_of(error)
    kind = type(error).__name__
    return printable(shortened(f"{kind}: {message}" if message else kind, _LONGEST))


def traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # an error may raise whenever it is looked at
        text = "the traceback cannot be formatted"
    return printable(shortened(text, _LONGEST_TRACEBACK))


def printable(text: str) -> str:
    r"""The text with escapes in place of what could move a cursor, reverse the reading or not be
    encoded: `\x1b` for the control character.  Ends of lines and tabs stay.
    """
    return "".join(c if _harmless(c) else _escaped(c) for c in text)


def in_a_line(text: str) -> str:
    """Printable, with a space in place of an end of line or a tab."""
    return " ".join(printable(text).split())


def shortened(text: str, longest: int) -> str:
    """The text, or what it begins with and an ellipsis."""
    return f"{text[:longest]}…" if len(text) > longest else text


def message_of(error: BaseException) -> str:
    """Its message, as far as there is one."""
    try:
        # Exactly of type str: what `__str__` returns may be code from elsewhere as well.
        return printable(str.__str__(str(error))[: _LONGEST + 1])
    except BaseException as inner:  # SystemExit as well: whatever `__str__` does, it is reported
        return f"its message cannot be read: {type(inner).__name__}"


def _harmless(c: str) -> bool:
    return c in "\n\t" or (c not in _REVERSING and unicodedata.category(c) not in ("Cc", "Cs"))


def _escaped(c: str) -> str:
    return c.encode("ascii", "backslashreplace").decode() if c > "\x7f" else f"\\x{ord(c):02x}"
