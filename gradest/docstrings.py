"""The docstring of a plugin's file, in parts: its headline, its body and its source."""

import inspect
import re
import sys

_YEAR = re.compile(r"\b(19|20)\d\d\b")


def headline(plugin: type) -> str:
    """The first line, without its full stop."""
    return _docstring(plugin).partition("\n")[0].rstrip(".")


def citation(plugin: type) -> str:
    """The last paragraph as one line, if it holds a year and is not the first; else nothing."""
    before, _, last = _docstring(plugin).rpartition("\n\n")
    return " ".join(last.split()) if before and _YEAR.search(last) else ""


def body(plugin: type) -> str:
    """All of it but the source."""
    text, source = _docstring(plugin), citation(plugin)
    return text.rpartition("\n\n")[0] if source else text


def _docstring(plugin: type) -> str:
    module = sys.modules[plugin.__module__]
    return inspect.cleandoc(module.__doc__ or plugin.__doc__ or "(no description)")
