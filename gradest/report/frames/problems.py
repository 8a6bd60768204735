"""Errors of a run's tables and of parts of its report.

Tables that cannot be read cost the whole report; a part that fails is missing alone, and the report
says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from gradest.errors import UsageError
from gradest.support import described

T = TypeVar("T")


class Problems:
    """Collects a line for each part of a report that failed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, what: str, make: Callable[[], T], otherwise: T) -> T:
        """The value that `make` returns; `otherwise`, and a line about `what`, if it fails.

        Raises OSError: a full disk costs the whole report, and the old one is kept.
        """
        try:
            return make()
        except OSError:
            raise
        except Exception as error:  # rows may hold anything, and each part may trip over it
            self.lines.append(f"{what} could not be made: {described(error)}")
            return otherwise


@contextmanager
def readable(folder: object) -> Iterator[None]:
    """Raises UsageError, naming the folder, for tables that within the block cannot be read."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder}: holds no readable run: {reason}") from error
