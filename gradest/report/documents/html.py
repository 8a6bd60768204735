"""The document as one HTML file that holds everything it shows and loads nothing.

Prose goes through markdown-it, which lets no HTML of its text through; tables and pictures go
through templates that escape.  DataTables, as itables ships it, sorts and filters; without scripts
the tables are there all the same.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image

from gradest.report.documents.document import Alert, Folded, Part, Picture, Strong, Table, Tagged
from gradest.support import Quantity

_TEMPLATES = Environment(
    loader=PackageLoader("gradest.report.documents", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
)
_LEVELS = (2, 3)  # headings that the contents name


def page(title: str, parts: Sequence[Part], pictures: Mapping[str, Path]) -> str:
    """The whole file; `pictures` are the PNG files of the figures, by name."""
    writer = _Writer(pictures)
    body = writer.all(parts)
    bundle = files("itables") / "html"
    assets = files("gradest.report.documents") / "assets"
    return _TEMPLATES.get_template("page.html").render(
        title=title,
        version=version("gradest"),
        contents=writer.contents,
        body=body,
        css=Markup((assets / "report.css").read_text(encoding="utf-8")),
        js=Markup((assets / "report.js").read_text(encoding="utf-8")),
        tables_css=Markup((bundle / "dt_bundle.css").read_text(encoding="utf-8")),
        tables_js=base64.b64encode((bundle / "dt_bundle.js").read_bytes()).decode("ascii"),
    )


@dataclass
class _Entry:
    """A line of the contents."""

    level: int
    text: str
    id: str


@dataclass
class _Writer:
    """Renders parts as HTML, and collects an anchor for every heading."""

    pictures: Mapping[str, Path]
    contents: list[_Entry] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def all(self, parts: Sequence[Part]) -> Markup:
        return Markup("\n").join(self.one(part) for part in parts if part)

    def one(self, part: Part) -> Markup:
        template: Any = _TEMPLATES.get_template("parts.html").module
        match part:
            case Table(headers, rows, left):
                return template.table(headers, [list(map(_cell, row)) for row in rows], left)
            case Picture(name, title, caption):
                path = self.pictures[name]
                reading = Markup(_markdown().renderInline(caption))
                return template.picture(_embedded(path), *_size(path), title, reading)
            case Folded(title, inside):
                return template.folded(title, self.anchor(title), self.all(inside))
            case _:
                return self.prose(part)

    def prose(self, text: str) -> Markup:
        tokens = _markdown().parse(text)
        for at, token in enumerate(tokens):
            if token.type == "heading_open":
                heading = "".join(t.content for t in tokens[at + 1].children or ())
                token.attrSet("id", self.anchor(heading))
                if (level := int(token.tag[1:])) in _LEVELS:
                    self.contents.append(_Entry(level, heading, str(token.attrGet("id"))))
            if token.type == "paragraph_open" and isinstance(text, Alert):
                token.attrSet("class", "alert")
            _without_files(token.children or ())
        # The renderer has escaped all text: `html` is off.
        return Markup(_markdown().renderer.render(tokens, _markdown().options, {}))

    def anchor(self, heading: str) -> str:
        """The anchor of a heading, different from those before it."""
        plain = anchored(heading)
        tries = (plain, *(f"{plain}-{n}" for n in range(1, len(self.taken) + 1)))
        anchor = next(each for each in tries if each not in self.taken)
        self.taken.add(anchor)
        return anchor


def anchored(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it, so that links work in Markdown and in HTML."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False})


def _without_files(tokens: Sequence[Token]) -> None:
    """Replace links to files of the run by their names: the page may have been sent alone."""
    inside = False
    for token in tokens:
        href = str(token.attrGet("href") or "")
        if token.type == "link_open" and not href.startswith(("#", "https://", "http://")):
            token.tag, token.attrs, inside = "span", {"class": "file"}, True
        elif token.type == "link_close" and inside:
            token.tag, inside = "span", False


def _cell(text: str) -> dict[str, Any]:
    order = text.order if isinstance(text, Quantity) else None
    # JavaScript cannot sort NaN: missing numbers come below all others.
    sortable = "" if order is not None and math.isnan(order) else order
    return {
        "text": str(text),
        "order": sortable,
        "strong": isinstance(text, Strong),
        "tag": text.tag if isinstance(text, Tagged) else None,
    }


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, so that the page does not move when the image is decoded."""
    with Image.open(path) as image:
        return image.size
