"""What a run shows while it goes on: a live display on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_QUIET = ContextVar("quiet", default=False)  # rather than an argument of all that have a display
_LIVE, _PLAIN = 1.0, 30.0  # seconds between two looks at what is under way


class Display(Protocol):
    """Told of every step; `done` after a cell, `advance` after a step without news."""

    def done(self, label: str, status: str, detail: str) -> None: ...

    def advance(self) -> None: ...


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Within the block displays tell what failed and nothing else."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def display(
    what: str, total: int, workers: int, under_way: Callable[[], float] = lambda: 0.0
) -> Iterator[Display]:
    """Shows progress through `total` steps of which `workers` run at a time, on standard error.

    `under_way` says how many steps those that are not finished amount to; it is asked now and then,
    from a thread.
    """
    if _QUIET.get():
        yield _Failures()
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        lines = _Lines(what, total, under_way)
        with _every(_PLAIN, lines.look):
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
    with Progress(*columns, console=console) as progress:
        live = _Live(progress, what, total, workers, under_way)
        with _every(_LIVE, live.look):
            yield live


@contextmanager
def _every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Within the block a thread looks again and again."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Failures:
    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            print(f"failed {label}: {detail}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        pass


class _Live:
    def __init__(
        self,
        progress: Progress,
        what: str,
        total: int,
        workers: int,
        under_way: Callable[[], float],
    ) -> None:
        self._progress, self._total, self._workers = progress, total, workers
        self._under_way = under_way
        self._finished = self._failed = 0
        # What an earlier run has left half done is no speed of this one.
        begun = under_way()
        shown = {"finished": 0, "running": min(workers, total), "failed": 0}
        self._bar = progress.add_task(what, total=total, completed=begun, **shown)

    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            self._failed += 1
            self._progress.console.print(f"[red]failed[/red] {escape(label)}: {escape(detail)}")
        self.advance()

    def advance(self) -> None:
        self._finished += 1
        self.look()

    def look(self) -> None:
        self._progress.update(
            self._bar,
            completed=self._finished + self._under_way(),
            finished=self._finished,
            running=min(self._workers, self._total - self._finished),
            failed=self._failed,
        )


class _Lines:
    def __init__(self, what: str, total: int, under_way: Callable[[], float]) -> None:
        self._what, self._total, self._under_way = what, total, under_way
        self._finished = 0
        self._start = time.monotonic()
        self._begun = self._seen = under_way()

    def done(self, label: str, status: str, detail: str) -> None:
        self._finished += 1
        tail = f": {detail}" if detail else ""
        left = self._left(self._finished + self._under_way())
        self._print(f"[{self._finished}/{self._total}, {left}] {status} {label}{tail}")

    def advance(self) -> None:
        self._finished += 1
        if self._finished == self._total:
            elapsed = time.monotonic() - self._start
            self._print(f"{self._what}: {self._total} steps in {elapsed:.0f} s")

    def look(self) -> None:
        """A line, if any step that is under way has come further."""
        under_way = self._under_way()
        if under_way != self._seen:
            self._seen, done = under_way, self._finished + under_way
            share = f"{100 * done / self._total:.0f} % of all steps"
            self._print(f"[{self._finished}/{self._total}, {self._left(done)}] {share}")

    def _left(self, done: float) -> str:
        """At the speed so far, of which what was done before is no part."""
        came = done - self._begun
        if came <= 0:
            return "time left unknown"
        left = (time.monotonic() - self._start) / came * (self._total - done)
        return f"{max(left, 0.0):.0f} s left"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
