"""Docstrings of plugins as HTML: equations as mathematics, names of plugins as links.

A paragraph that is indented holds equations, one a line.  On a line, two spaces or more separate
an equation from the next one; where several lines have a column in common, they are a table.
"""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from tools.site import mathml

_CODE = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"(?<![\w`])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?!\w)")
_SEGMENT = re.compile(r"\S+(?: \S+)*")


def html(text: str, links: Mapping[str, str]) -> Markup:
    """The paragraphs of a docstring; `links` maps names of plugins to the addresses of pages."""
    blocks = filter(None, text.split("\n\n"))
    return Markup("\n").join(
        equations(block) if block[0].isspace() else Markup("<p>{}</p>").format(prose(block, links))
        for block in blocks
    )


def prose(text: str, links: Mapping[str, str]) -> Markup:
    """One paragraph: text in backticks is code, and a plugin's name is a link."""
    pieces = _CODE.split(" ".join(text.split()))
    return Markup("").join(
        code(piece, links) if n % 2 else _with_links(piece, links) for n, piece in enumerate(pieces)
    )


def code(text: str, links: Mapping[str, str]) -> Markup:
    inside = Markup('<code class="docutils literal">{}</code>').format(text)
    return Markup('<a href="{}">{}</a>').format(links[text], inside) if text in links else inside


def _with_links(text: str, links: Mapping[str, str]) -> Markup:
    """Only names with an underscore: `exact` and `concrete` are words as well."""
    parts, at = [], 0
    for match in _WORD.finditer(text):
        parts += [escape(text[at : match.start()])]
        found = match.group()
        parts += [code(found, links) if found in links else escape(found)]
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])


def equations(block: str) -> Markup:
    """An indented paragraph: a line of equations for each of its lines, or a table of them."""
    lines = [
        [(match.start(), match.group()) for match in _SEGMENT.finditer(line)]
        for line in block.split("\n")
    ]
    body = Markup("").join(
        _table(group) if len(group) > 1 else _line(group[0]) for group in _groups(lines)
    )
    return Markup('<div class="equations" role="group" aria-label="Equations">{}</div>').format(
        body
    )


_Line = Sequence[tuple[int, str]]


def _groups(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Consecutive lines that have a column in common, besides the first."""
    groups: list[list[_Line]] = []
    for line in lines:
        starts = {start for start, _ in line[1:]} | ({line[0][0]} if line[0][0] > 4 else set())
        if groups and starts & {start for each in groups[-1] for start, _ in each[1:]}:
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _line(line: _Line) -> Markup:
    cells = Markup("").join(Markup("<span>{}</span>").format(_math(text)) for _, text in line)
    return Markup('<div class="line">{}</div>').format(cells)


def _table(lines: Sequence[_Line]) -> Markup:
    """Cells at the columns where they begin; one reaches to the beginning of the next."""
    starts = sorted({start for line in lines for start, _ in line})
    rows = Markup("").join(_row(line, starts) for line in lines)
    return Markup('<div class="grid"><table role="presentation">{}</table></div>').format(rows)


def _row(line: _Line, starts: Sequence[int]) -> Markup:
    at = [starts.index(start) for start, _ in line]
    cells = [Markup("<td></td>")] * at[0]
    for (_, text), first, after in zip(line, at, [*at[1:], len(starts)], strict=True):
        cells.append(Markup('<td colspan="{}">{}</td>').format(after - first, _math(text)))
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def _math(text: str) -> Markup:
    return Markup(mathml.equation(text))  # which escapes what it is given
