"""What the docstring of a plugin's file says: its headline and its source."""

import inspect
import re
import sys

_YEAR = re.compile(r"\b(19|20)\d\d\b")


def headline(found: type) -> str:
    """The first line, without its full stop."""
    return _docstring(found).partition("\n")[0].rstrip(".")


def citation(found: type) -> str:
    """The last paragraph as one line, if it holds a year and is not the first; else nothing."""
    before, _, last = _docstring(found).rpartition("\n\n")
    return " ".join(last.split()) if before and _YEAR.search(last) else ""


def body(found: type) -> str:
    """All of it but the source."""
    text, source = _docstring(found), citation(found)
    return text.rpartition("\n\n")[0] if source else text


def _docstring(found: type) -> str:
    module = sys.modules[found.__module__]
    return inspect.cleandoc(module.__doc__ or found.__doc__ or "(no description)")
