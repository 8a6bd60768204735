"""Citations: in the docstring of a plugin's file, as records, and as text, Markdown and BibTeX.

The last paragraph of a docstring is its citation if it contains a year.

A citation is `Authors, "Title", [venue,] year[, arXiv id]`; several are joined by `; `.  Any
other text is a plugin's free text: `parse` refuses it, all other functions show it unchanged.
"""

import inspect
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradest.errors import PluginError
from gradest.support import markup, tex

_YEAR = re.compile(r"\b(19|20)\d\d\b")
_PATTERN = re.compile(
    r'(?P<authors>[^";]+), "(?P<title>[^"]+)", '
    r"(?:(?P<venue>[^\";]+), )?(?P<year>(?:19|20)\d\d)(?:, arXiv (?P<arxiv>\d{4}\.\d{4,5}))?"
)
_BETWEEN = re.compile(r';\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')  # a semicolon outside of all titles
_MINOR = {"a", "an", "the", "on"}  # first words that do not distinguish titles


@dataclass(frozen=True)
class Reference:
    """One publication; `authors` are family names."""

    authors: tuple[str, ...]
    title: str
    venue: str | None
    year: int
    arxiv: str | None

    def __str__(self) -> str:
        """The citation that it is read from."""
        return f"{self._before_arxiv()}{f', arXiv {self.arxiv}' if self.arxiv else ''}"

    @property
    def key(self) -> str:
        """The key in BibTeX, of first author, year and title: `maddison2017concrete`."""
        words = [word for word in map(_plain, self.title.split()) if word]
        word = next((word for word in words if word not in _MINOR), "")
        return f"{_plain(self.authors[0])}{self.year}{word}"

    @property
    def short(self) -> str:
        """`Williams 1992`, `Yin & Zhou 2019`, `Tucker et al. 2017`."""
        first, *others = self.authors
        more = f" & {others[0]}" if len(others) == 1 else " et al." if others else ""
        return f"{first}{more} {self.year}"

    @property
    def url(self) -> str | None:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None

    def markdown(self) -> str:
        """The citation, with a link to arXiv."""
        link = f", [arXiv {self.arxiv}]({self.url})" if self.url else ""
        return f"{markup.escape(self._before_arxiv())}{link}"

    def _before_arxiv(self) -> str:
        *others, last = self.authors
        names = f"{', '.join(others)} & {last}" if others else last
        venue = f"{self.venue}, " if self.venue else ""
        return f'{names}, "{self.title}", {venue}{self.year}'


def headline(plugin: type) -> str:
    """The first line of a plugin's docstring, without its full stop."""
    return _docstring(plugin).partition("\n")[0].rstrip(".")


def citation(plugin: type) -> str:
    """The last paragraph as one line, if it holds a year and is not the first; else nothing."""
    before, _, last = _docstring(plugin).rpartition("\n\n")
    return " ".join(last.split()) if before and _YEAR.search(last) else ""


def body(plugin: type) -> str:
    """The docstring without its citation."""
    text, source = _docstring(plugin), citation(plugin)
    return text.rpartition("\n\n")[0] if source else text


def parse(citation: str) -> list[Reference]:
    """The records of a citation.  Raises PluginError, with the text, for one that does not fit."""
    return [_reference(part) for part in _BETWEEN.split(citation.removesuffix("."))]


def in_markdown(citation: str, short: bool = False) -> str:
    """A citation in Markdown, with links to arXiv; `short` gives authors and year alone."""
    records = _lenient(citation)
    if isinstance(records, str):
        return markup.escape(records)
    if not short:
        return "; ".join(each.markdown() for each in records)
    return "; ".join(
        f"[{markup.escape(each.short)}]({each.url})" if each.url else markup.escape(each.short)
        for each in records
    )


def bibtex(citations: Mapping[str, str]) -> str:
    """The publications cited under these names, each once, sorted by key.

    Free text becomes the note of an entry with the name as its key.
    """
    entries: dict[str, list[tuple[str, str]]] = {}
    for name, citation in citations.items():
        records = _lenient(citation)
        if isinstance(records, str):
            cited = [(re.sub(r"[^\w.-]", "-", name), [("note", tex.escape(records))])]
        else:
            cited = [(each.key, _fields(each)) for each in records]
        for key, fields in cited:
            if fields not in entries.values():
                entries[_unused(key, entries)] = fields
    return "\n".join(_entry(key, entries[key]) for key in sorted(entries))


def _docstring(plugin: type) -> str:
    module = sys.modules[plugin.__module__]
    return inspect.cleandoc(module.__doc__ or plugin.__doc__ or "(no description)")


def _lenient(citation: str) -> list[Reference] | str:
    try:
        return parse(citation)
    except PluginError:
        return " ".join(citation.split())


def _reference(text: str) -> Reference:
    match = _PATTERN.fullmatch(text)
    if not match:
        raise PluginError(
            "expected a citation of the form "
            'Authors, "Title", [venue,] year[, arXiv id], several joined by "; "; '
            f"got {text!r}"
        )
    authors = tuple(re.split(r", | & ", match["authors"]))
    return Reference(authors, match["title"], match["venue"], int(match["year"]), match["arxiv"])


def _fields(reference: Reference) -> list[tuple[str, str]]:
    # In braces of its own, so that no style splits a family name or writes a title in lower case.
    fields = {
        "author": " and ".join(f"{{{tex.escape(name)}}}" for name in reference.authors),
        "title": f"{{{tex.escape(reference.title)}}}",
        "howpublished": tex.escape(reference.venue or ""),
        "year": str(reference.year),
        "eprint": reference.arxiv,
        "archiveprefix": "arXiv" if reference.arxiv else None,
        "url": reference.url,
    }
    return [(name, value) for name, value in fields.items() if value]


def _entry(key: str, fields: Sequence[tuple[str, str]]) -> str:
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields]
    return f"@misc{{{key},\n{''.join(lines)}}}\n"


def _unused(key: str, taken: Mapping[str, object]) -> str:
    """The key, or with a number behind it where another publication has it."""
    candidates = [key, *(f"{key}-{n}" for n in range(2, len(taken) + 2))]
    return next(each for each in candidates if each not in taken)


def _plain(text: str) -> str:
    """The letters and digits of a text, as lower-case ASCII."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return re.sub(r"[^a-z0-9]", "", decomposed)
