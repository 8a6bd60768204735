"""The lock of a run's folder, which only one run or report may change at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from gradest.errors import UsageError
from gradest.support import clear_temporary, settle

_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
_SUBFOLDERS = ("tables", "figures", "networks", "unfinished/*")  # where temporary files may be


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder; a caller that holds it already may enter again.

    Finishes or removes what a killed run or report has left.  Raises UsageError if the folder
    cannot be written or another run or report holds the lock.
    """
    place = folder.resolve()
    if place in _HELD.get():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".run.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder}: another run or report is using this folder; try again when it has ended"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"{folder}: cannot be written: {reason}") from None
    token = _HELD.set(_HELD.get() | {place})
    try:
        settle(folder)
        clear_temporary([folder, *(path for name in _SUBFOLDERS for path in folder.glob(name))])
        yield
    finally:
        _HELD.reset(token)
        lock.release()
