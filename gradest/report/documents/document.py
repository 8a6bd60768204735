"""What a report is made of, whatever file it becomes.

A document is a list of parts in the order in which they are read: paragraphs, headings and lists
are Markdown, in which plugins' words have been escaped; a table and a picture are objects, since
every form of the report shows those in its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradest.markdown import escape, table
from gradest.quantities import Quantity


class Strong(str):
    """Plain text that stands out."""


class Alert(Strong):
    """A paragraph that must not be overlooked: a failed control, or numbers that are missing."""


class Tagged(str):
    """Plain text of a judgement, which a form with colours may show by its `tag`."""

    tag: Literal["good", "bad", "unsure"]

    def __new__(cls, text: str, tag: Literal["good", "bad", "unsure"]) -> "Tagged":
        found = super().__new__(cls, text)
        found.tag = tag
        return found


@dataclass(frozen=True)
class Table:
    """Plain texts, not escaped; `Quantity`, `Strong` and `Tagged` say more of theirs.

    The first `left` columns hold text and are aligned to the left.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int


@dataclass(frozen=True)
class Picture:
    """A figure of the run by its name, what it shows in a few plain words, and how to read it."""

    name: str
    shows: str
    reading: str


@dataclass(frozen=True)
class Folded:
    """What few readers need: a form that can fold shows the title alone at first."""

    title: str
    parts: Sequence["Part"]
    level: int = 3  # of its heading where nothing can be folded


Part = str | Table | Picture | Folded


def markdown(parts: Sequence[Part]) -> str:
    """The document as one text, with figures by their paths beside it."""
    return "\n\n".join(map(_markdown, filter(None, parts))) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Table(headers, rows, left):
            lines = [[_cell(text) for text in row] for row in rows]
            return table([escape(text) for text in headers], lines, left)
        case Picture(name, shows, reading):
            file = f"figures/{name}"
            return f"![{shows}]({file}.png)\n\n{shows}. {reading} ([SVG]({file}.svg))"
        case Folded(title, inside, level):
            return f"{'#' * level} {escape(title)}\n\n{markdown(inside).rstrip()}"
        case _:
            return part


def _cell(text: str) -> str:
    if isinstance(text, Quantity):
        return text  # ours, and brackets around an interval are literal where no link follows
    escaped = escape(text)
    return f"**{escaped}**" if isinstance(text, Strong) else escaped
