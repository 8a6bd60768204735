"""Calls that jobs make in tests of engines, and conditions that are waited for."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def stay(path: str) -> None:
    """Write the number of this process to a file and never return."""
    begun = Path(path)
    begun.with_suffix(".part").write_text(str(os.getpid()))
    begun.with_suffix(".part").rename(begun)
    time.sleep(1000)


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_gone(process: int) -> None:
    """Wait until a process has ended and its parent has taken notice."""
    wait_for(lambda: not _lives(process))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
