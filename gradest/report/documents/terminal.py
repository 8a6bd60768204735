"""Parts of a document as text: coloured and fitted to the screen on a terminal, plain elsewhere.

Text is shown literally: plugins and paths can contain markup and control sequences.
"""

import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table as Columns
from rich.text import Text
from tabulate import tabulate

from gradest.report.documents.document import Alert, Strong, Table


def show(parts: Iterable[str | Table]) -> None:
    """Print parts to standard output; a heading, which is a `Strong`, follows an empty line."""
    console = Console(file=sys.stdout, highlight=False)
    for part in filter(None, parts):
        if isinstance(part, Strong):
            print()
        if console.is_terminal:
            console.print(_rich(part))
        else:
            print(_plain(part))


def _rich(part: str | Table) -> RenderableType:
    match part:
        case Table(headers, rows, left):
            shown = Columns(box=None, pad_edge=False, header_style="dim")
            for at, header in enumerate(headers):
                side = "left" if at < left else "right"
                shown.add_column(_text(header), justify=side)
            for row in rows:
                shown.add_row(*(_text(cell) for cell in row))
            return shown
        case _:
            return _text(part)


def _text(words: str) -> Text:
    """Long text is folded: names that are cut could look the same."""
    style = "bold red" if isinstance(words, Alert) else "bold" if isinstance(words, Strong) else ""
    return Text(_clean(words), style, overflow="fold")


def _plain(part: str | Table) -> str:
    """A table as wide as necessary, so that each row is one line."""
    match part:
        case Table(headers, rows, left):
            align = ["left"] * left + ["right"] * (len(headers) - left)
            lines = [[_clean(cell) for cell in row] for row in (headers, *rows)]
            return tabulate(
                lines[1:], lines[0], tablefmt="plain", disable_numparse=True, colalign=align
            )
        case _:
            return _clean(part)


def _clean(text: str) -> str:
    """One line without control characters, which could move the cursor or reverse the text."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
