"""The document model of a report, the same for all formats, and its rendering as Markdown.

A document is a list of parts in the order in which they are read: paragraphs, headings and lists
are Markdown, in which texts of plugins are escaped; a table and a picture are objects, since every
format of the report renders them in its own way.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from gradest.support import Quantity, markup


class Strong(str):
    """Plain text that stands out."""


class Alert(Strong):
    """A paragraph that must not be overlooked: a failed control, or missing numbers."""


class Tagged(str):
    """Plain text of a judgement, whose `tag` chooses the colour in formats with colours."""

    tag: Literal["good", "bad", "unsure"]

    def __new__(cls, text: str, tag: Literal["good", "bad", "unsure"]) -> "Tagged":
        tagged = super().__new__(cls, text)
        tagged.tag = tag
        return tagged


@dataclass(frozen=True)
class Table:
    """Plain texts, not escaped; some are `Quantity`, `Strong` or `Tagged`.

    The first `left` columns hold text and are aligned to the left.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int


@dataclass(frozen=True)
class Picture:
    """A figure of the run, by its name; its title is plain text and its caption Markdown."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True)
class Folded:
    """Parts that few readers need: a format that can fold shows the title alone at first."""

    title: str
    parts: Sequence["Part"]
    level: int = 3  # of its heading where nothing can be folded


Part = str | Table | Picture | Folded


_ALL = (".png", ".svg", ".pdf")


def render_markdown(parts: Sequence[Part], figures: Collection[str] = _ALL) -> str:
    """The document as one text, with figures by their relative paths.

    `figures` are the suffixes of the files of each.
    """
    return "\n\n".join(_markdown(part, figures) for part in parts if part) + "\n"


def _markdown(part: Part, figures: Collection[str]) -> str:
    match part:
        case Table(headers, rows, left):
            lines = [[_cell(text) for text in row] for row in rows]
            return markup.table([markup.escape(text) for text in headers], lines, left)
        case Picture(name, title, caption):
            return _picture(name, title, caption, figures)
        case Folded(title, inside, level):
            text = render_markdown(inside, figures).rstrip()
            return f"{'#' * level} {markup.escape(title)}\n\n{text}"
        case _:
            return part


def _picture(name: str, title: str, caption: str, figures: Collection[str]) -> str:
    shown, linked = (
        [f"figures/{name}{suffix}" for suffix in suffixes if suffix in figures]
        for suffixes in ((".png", ".svg"), (".svg", ".pdf"))
    )
    image = f"![{title}]({shown[0]})\n\n" if shown else ""
    link = f" ([{linked[0][-3:].upper()}]({linked[0]}))" if linked else ""
    return f"{image}{title}. {caption}{link}"


def _cell(text: str) -> str:
    if isinstance(text, Quantity):
        return text  # ours, and brackets around an interval are literal where no link follows
    escaped = markup.escape(text)
    return f"**{escaped}**" if isinstance(text, Strong) else escaped
