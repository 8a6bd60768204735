"""Handling of SIGTERM, which ends a run like Ctrl-C and keeps its finished cells."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from gradest.support.collector import collect_no_more

# Exit statuses as in shells: 128 plus the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """This process has received SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block, SIGTERM raises Terminated in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_with(status: int) -> NoReturn:
    """End this process; after an interruption also if threads still compute.

    sys.exit would not wait for these, and they would crash the interpreter while it shuts down.
    """
    if status in (INTERRUPTED, TERMINATED) and threading.active_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    collect_no_more()
    sys.exit(status)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
