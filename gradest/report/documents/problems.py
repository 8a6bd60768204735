"""What of a report could not be made: each part that fails costs itself alone, and is told."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gradest.markdown import escape
from gradest.report.documents.document import Alert, Part
from gradest.text import described

T = TypeVar("T")


class Problems:
    """Collects a line for each part of a report that failed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, what: str, make: Callable[[], T], otherwise: T) -> T:
        """What `make` returns; `otherwise`, and a line on `what`, if it fails.

        Raises OSError: a disk that is full costs the whole report, and the old one is kept.
        """
        try:
            return make()
        except OSError:
            raise
        except Exception as error:  # a part fails for what is in some row, in any way there is
            self.lines.append(f"{what} could not be made: {described(error)}")
            return otherwise

    def section(self, what: str, make: Callable[[], Iterable[Part]]) -> Iterator[Part]:
        """The parts of a section; of one that fails, a word on that in its place."""
        before = len(self.lines)
        parts = self.attempt(f"the section {what}", lambda: list(make()), [])
        yield from parts
        for line in self.lines[before:]:
            yield Alert(f"**Not in this report:** {escape(line)}.")
