"""The progress display of a run: live on a terminal, plain lines elsewhere."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gradest.support import in_a_line

# A context variable spares every function with a display the argument.
_QUIET = ContextVar("quiet", default=False)
_LIVE, _PLAIN = 1.0, 30.0  # seconds between two updates
_MOST_RUNNING = 4  # running steps that are listed
_EACH = 100  # steps that have a line each where there is no terminal
_APART = 1.0  # seconds between the lines of all later ones
_STARTED = 10.0  # seconds after which the start of workers matters little


class Display(Protocol):
    """A progress display: `done` reports a finished cell, `advance` a step without a name."""

    def done(self, label: str, status: str, detail: str) -> None: ...

    def advance(self) -> None: ...


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Within the block, displays print only failures."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)


def tell(line: str) -> None:
    """Print a line on standard error, unless displays are quiet."""
    if not _QUIET.get():
        print(line, file=sys.stderr, flush=True)


Running = Callable[[], Mapping[str, float]]  # label -> seconds so far, the longest first


@contextmanager
def display(
    what: str,
    total: int,
    workers: int,
    under_way: Callable[[], float] = lambda: 0.0,
    running: Running = dict,
) -> Iterator[Display]:
    """Show progress through `total` steps, `workers` of them at a time, on standard error.

    `under_way` returns the finished part of the unfinished steps, as a number of steps, and
    `running` their labels and durations; a thread calls both at regular intervals.
    """
    if _QUIET.get():
        yield _Failures()
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        lines = _Lines(what, total, workers, under_way, running)
        with _every(_PLAIN, lines.update):
            yield lines
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[finished]}/{task.total} done"),
        TextColumn("{task.fields[running]} running, {task.fields[failed]} failed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with _Bar(*columns, console=console, running=running) as progress:
        live = _Live(progress, what, total, workers, under_way, running)
        with _every(_LIVE, live.update):
            yield live


@contextmanager
def _every(seconds: float, update: Callable[[], None]) -> Iterator[None]:
    """Call `update` at regular intervals from a thread until the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            update()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _longest(running: Mapping[str, float], least: float = 0.0) -> list[tuple[str, float]]:
    """The longest running steps that take at least `least` seconds."""
    return [(label, seconds) for label, seconds in running.items() if seconds >= least][
        :_MOST_RUNNING
    ]


class _Failures:
    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            print(f"failed {in_a_line(label)}: {in_a_line(detail)}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        pass


class _Bar(Progress):
    """A progress bar with the running steps below it."""

    def __init__(self, *columns: ProgressColumn, console: Console, running: Running) -> None:
        self._running = running  # before the base class renders anything
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        for label, seconds in _longest(self._running()):
            line = f"{seconds:6.0f} s  {in_a_line(label)}"
            yield Text(line, "dim", no_wrap=True, overflow="ellipsis")


class _Live:
    def __init__(
        self,
        progress: Progress,
        what: str,
        total: int,
        workers: int,
        under_way: Callable[[], float],
        running: Running,
    ) -> None:
        self._progress, self._total, self._workers = progress, total, workers
        self._under_way, self._running = under_way, running
        self._finished = self._failed = 0
        # Work of an earlier run must not count for the speed of this one.
        initial = under_way()
        counts = {"finished": 0, "running": min(workers, total), "failed": 0}
        self._bar = progress.add_task(what, total=total, completed=initial, **counts)

    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            self._failed += 1
            message = escape(f"{in_a_line(label)}: {in_a_line(detail)}")
            self._progress.console.print(f"[red]failed[/red] {message}")
        self.advance()

    def advance(self) -> None:
        self._finished += 1
        self.update()

    def update(self) -> None:
        self._progress.update(
            self._bar,
            completed=self._finished + self._under_way(),
            finished=self._finished,
            running=len(self._running()) or min(self._workers, self._total - self._finished),
            failed=self._failed,
        )


class _Lines:
    def __init__(
        self,
        what: str,
        total: int,
        workers: int,
        under_way: Callable[[], float],
        running: Running = dict,
    ) -> None:
        self._what, self._total, self._workers = what, total, workers
        self._under_way, self._running = under_way, running
        self._finished = 0
        self._start = time.monotonic()
        self._printed = -math.inf
        self._initial = self._last = under_way()
        self._first: tuple[float, float] | None = None  # when there was progress first, and how far

    def done(self, label: str, status: str, detail: str) -> None:
        """Print a line: after a hundred steps one a second, and for all that failed."""
        self._finished += 1
        many = self._finished > _EACH and status != "failed" and self._finished < self._total
        left = self._left(self._finished + self._under_way())
        if many and time.monotonic() < self._printed + _APART:
            return
        self._printed = time.monotonic()
        tail = f": {in_a_line(detail)}" if detail else ""
        self._print(f"[{self._finished}/{self._total}, {left}] {status} {in_a_line(label)}{tail}")

    def advance(self) -> None:
        self._finished += 1
        if self._finished == self._total:
            elapsed = time.monotonic() - self._start
            self._print(f"{self._what} took {elapsed:.0f} s")

    def update(self) -> None:
        """Print a line if a running step has made progress or takes long."""
        under_way = self._under_way()
        messages = []
        done = self._finished + under_way
        if under_way != self._last:
            self._last = under_way
            messages.append(f"{100 * done / self._total:.0f} % of all steps")
        if long := _longest(self._running(), _PLAIN):
            steps = ", ".join(f"{in_a_line(label)} ({seconds:.0f} s)" for label, seconds in long)
            messages.append(f"running: {steps}")
        if messages:
            line = "; ".join(messages)
            self._print(f"[{self._finished}/{self._total}, {self._left(done)}] {line}")

    def _left(self, done: float) -> str:
        """The time left at the speed of this run, without the work of an earlier one.

        The first steps wait for workers to start, which must not count for all others.
        """
        progress, now = done - self._initial, time.monotonic()
        if done >= self._total:
            return "0 s left"
        if progress <= 0:
            return "time left unknown"
        self._first = self._first or (now, progress)
        since, before = self._first
        if progress - before >= 2 * self._workers:
            pace = (now - since) / (progress - before)
        elif now - self._start >= _STARTED:
            pace = (now - self._start) / progress
        else:
            return "time left unknown"
        return f"{max(pace * (self._total - done), 0.0):.0f} s left"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
