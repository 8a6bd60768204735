"""The formats of a report: which files are written, and how the document names them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gradest.errors import UsageError
from gradest.support import shortened, suggestion

FORMATS = {
    "html": "report.html, with its figures inside",
    "md": "report.md",
    "csv": "the tables in tables/",
    "parquet": "the same tables",
    "tex": "tables for papers in tables/",
    "png": "figures",
    "svg": "figures",
    "pdf": "figures",
}
PAGE, MARKDOWN, BIBTEX = "report.html", "report.md", "references.bib"
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
_DOCUMENTS, _TABLES = ("html", "md"), ("csv", "parquet")
_FIGURES = tuple(suffix.removeprefix(".") for suffix in FIGURE_SUFFIXES)
_SMALL = 500  # rows of a run that has vector graphics unasked


@dataclass(frozen=True)
class Formats:
    """The formats that are written; those of tables and figures are also suffixes."""

    names: frozenset[str] = frozenset(FORMATS)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Formats":
        """Raises UsageError for an unknown format."""
        chosen = [name.strip() for name in names]
        for name in chosen:
            if name not in FORMATS:
                hint = suggestion(name, FORMATS)
                raise UsageError(f"--formats: unknown format {shortened(name)}{hint}")
        return cls(frozenset(chosen))

    @classmethod
    def chosen(cls, text: str | None) -> "Formats | None":
        """Those of the option --formats, if it is given.  Raises UsageError for unknown ones."""
        return None if text is None else cls.of(text.split(","))

    @classmethod
    def default(cls, rows: int) -> "Formats":
        """All; of large runs no vector graphics, which would be larger than all else together."""
        vectors = {"svg", "pdf"} if rows > _SMALL else set()
        return cls(frozenset(FORMATS) - vectors)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @property
    def documents(self) -> bool:
        return any(name in self.names for name in _DOCUMENTS)

    @property
    def drawn(self) -> bool:
        """Whether figures are needed: report.html has them inside."""
        return "html" in self.names or bool(self.figures)

    @property
    def tables(self) -> list[str]:
        return self._suffixes(_TABLES)

    @property
    def figures(self) -> list[str]:
        return self._suffixes(_FIGURES)

    def link(self, table: str, before: str) -> str:
        """A sentence in Markdown on the file of a table, after `before`; empty if there is none."""
        if not self.tables:
            return ""
        name = f"{table}{self.tables[0]}"
        return f"{before}[{name}](tables/{name})"

    def _suffixes(self, names: Collection[str]) -> list[str]:
        return [f".{name}" for name in names if name in self.names]
