"""The claims of papers as one table to sort and filter, read from docs/published.md."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from gradest.errors import UsageError
from tools.site import docstrings, pages

_COLUMNS = ["claim", "on", "published", "measured", "verdict"]
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Claim(NamedTuple):
    """A row of the tables; the texts are plain, but for the claim, which has code."""

    suite: str
    says: str
    formula: str
    on: str
    published: str
    measured: str
    verdict: str


def read(text: str) -> list[Claim]:
    """All claims of the page, in its order.

    Raises UsageError for a page without a table of claims.
    """
    claims = list(_rows(MarkdownIt("commonmark", {"html": False}).enable("table").parse(text)))
    if not claims:
        raise UsageError("docs/published.md: no table of claims; make published writes them")
    return claims


def _rows(tokens: list[Token]) -> Iterator[Claim]:
    suite, cells = "", []
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h3":
            suite = tokens[at + 1].content
        elif token.type == "tr_open":
            cells = []
        elif token.type == "td_open":
            cells.append(tokens[at + 1].children or [])
        elif token.type == "tr_close" and len(cells) == len(_COLUMNS):
            claim, *others = cells
            code = "".join(t.content for t in claim if t.type == "code_inline")
            says = "".join(t.content for t in claim if t.type != "code_inline")
            plain = ("".join(t.content for t in each) for each in others)
            yield Claim(suite.removeprefix("published/"), says.rstrip(": "), code, *plain)


def page(root: Path, links: Mapping[str, str]) -> str:
    """The page of all claims; `links` maps names of estimators to the addresses of pages."""
    claims = read((root / "docs/published.md").read_text(encoding="utf-8"))
    rows = [
        {
            **claim._asdict(),
            "formula": _linked(claim.formula, links),
            "says": docstrings.prose(claim.says, {}),
        }
        for claim in claims
    ]
    counts = {v: sum(c.verdict == v for c in claims) for v in sorted({c.verdict for c in claims})}
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    values = {"rows": rows, "suites": list(dict.fromkeys(c.suite for c in claims))}
    return "\n".join(
        [
            "# Published claims\n",
            f"What papers claim about gradient estimators, against what is measured: {len(claims)} "
            f"claims, {total}. Brackets are 95 % intervals; numbers without brackets are exact. "
            "[Published results, reproduced](docs/published.md) has the sources of each suite, and "
            "[Claims](docs/claims.md) explains the language and the verdicts.\n",
            pages.raw(pages.rendered("claims.html", values)),
        ]
    )


def _linked(formula: str, links: Mapping[str, str]) -> Markup:
    """The formula as code, in which names of estimators are links."""
    parts, at = [], 0
    for match in _NAME.finditer(formula):
        if match[0] in links:
            link = Markup('<a href="{}">{}</a>').format(links[match[0]], match[0])
            parts += [Markup.escape(formula[at : match.start()]), link]
            at = match.end()
    inside = Markup("").join([*parts, Markup.escape(formula[at:])])
    return Markup('<code class="docutils literal">{}</code>').format(inside)
