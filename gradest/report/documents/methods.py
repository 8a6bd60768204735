"""The section of a report on the methods that were measured: equations and sources."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gradest.plugins import citations
from gradest.report.documents.document import Folded, Part
from gradest.support import markup

_CODE = re.compile(r"`([^`]+)`")


def section(docstrings: Any, cited: Mapping[str, str], file: str) -> Iterator[Part]:
    """Each estimator by its own docstring, with the sources that it cites.

    `docstrings` maps names to docstrings without their sources, as run.json has them; runs of
    earlier versions have none, and then the sources stand alone.
    """
    docstrings = docstrings if isinstance(docstrings, Mapping) else {}
    names = sorted({*docstrings, *cited})
    if not names:
        return
    yield "## Methods"
    if cited:
        yield f"References as BibTeX: [{file}]({file})"
    for name in names:
        yield Folded(name, tuple(_method(str(docstrings.get(name, "")), cited.get(name))))


def _method(docstring: str, citation: str | None) -> Iterator[Part]:
    for paragraph in filter(None, docstring.split("\n\n")):
        yield (
            markup.code_block(_unindented(paragraph))
            if paragraph[0].isspace()
            else _text(paragraph)
        )
    if citation:
        yield citations.in_markdown(citation)


def _text(paragraph: str) -> str:
    """Prose as Markdown: text in backticks is code, and all else is escaped."""
    pieces = _CODE.split(paragraph)
    return "".join(f"`{p}`" if n % 2 else _inside(p) for n, p in enumerate(pieces))


def _inside(text: str) -> str:
    """Escaped text with the spaces at its ends, which separate it from adjacent code."""
    line = re.sub(r"\s+", " ", text)
    before, after = " " * line.startswith(" "), " " * line.endswith(" ")
    return before + markup.escape(line) + after if line.strip() else line


def _unindented(paragraph: str) -> str:
    lines = paragraph.split("\n")
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines)
