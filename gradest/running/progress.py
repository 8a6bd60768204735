"""What a run shows while it goes on: a live display on a terminal, plain lines elsewhere."""

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

from gradest.text import in_a_line

_QUIET = ContextVar("quiet", default=False)  # rather than an argument of all that have a display
_LIVE, _PLAIN = 1.0, 30.0  # seconds between two looks at what is under way
_NAMED = 4  # of those that are running, at most


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


Running = Callable[[], Mapping[str, float]]  # label -> seconds so far, the longest first


@contextmanager
def display(
    what: str,
    total: int,
    workers: int,
    under_way: Callable[[], float] = lambda: 0.0,
    running: Running = dict,
) -> Iterator[Display]:
    """Shows progress through `total` steps of which `workers` run at a time, on standard error.

    `under_way` says how many steps those that are not finished amount to, and `running` which these
    are, as far as that is known; both are asked now and then, from a thread.
    """
    if _QUIET.get():
        yield _Failures()
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        lines = _Lines(what, total, under_way, running)
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
    with _Bar(*columns, console=console, running=running) as progress:
        live = _Live(progress, what, total, workers, under_way, running)
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


def _longest(running: Mapping[str, float], least: float = 0.0) -> list[tuple[str, float]]:
    """The first few of those that run for at least so long."""
    return [(label, seconds) for label, seconds in running.items() if seconds >= least][:_NAMED]


class _Failures:
    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            print(f"failed {in_a_line(label)}: {in_a_line(detail)}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        pass


class _Bar(Progress):
    """A bar with what is running below it."""

    def __init__(self, *columns: ProgressColumn, console: Console, running: Running) -> None:
        self._running = running  # before the base shows anything
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
        # What an earlier run has left half done is no speed of this one.
        begun = under_way()
        shown = {"finished": 0, "running": min(workers, total), "failed": 0}
        self._bar = progress.add_task(what, total=total, completed=begun, **shown)

    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            self._failed += 1
            told = escape(f"{in_a_line(label)}: {in_a_line(detail)}")
            self._progress.console.print(f"[red]failed[/red] {told}")
        self.advance()

    def advance(self) -> None:
        self._finished += 1
        self.look()

    def look(self) -> None:
        self._progress.update(
            self._bar,
            completed=self._finished + self._under_way(),
            finished=self._finished,
            running=len(self._running()) or min(self._workers, self._total - self._finished),
            failed=self._failed,
        )


class _Lines:
    def __init__(
        self, what: str, total: int, under_way: Callable[[], float], running: Running = dict
    ) -> None:
        self._what, self._total = what, total
        self._under_way, self._running = under_way, running
        self._finished = 0
        self._start = time.monotonic()
        self._begun = self._seen = under_way()

    def done(self, label: str, status: str, detail: str) -> None:
        self._finished += 1
        tail = f": {in_a_line(detail)}" if detail else ""
        left = self._left(self._finished + self._under_way())
        self._print(f"[{self._finished}/{self._total}, {left}] {status} {in_a_line(label)}{tail}")

    def advance(self) -> None:
        self._finished += 1
        if self._finished == self._total:
            elapsed = time.monotonic() - self._start
            self._print(f"{self._what}: {self._total} steps in {elapsed:.0f} s")

    def look(self) -> None:
        """A line, if any step that is under way has come further or takes long."""
        under_way = self._under_way()
        told = []
        done = self._finished + under_way
        if under_way != self._seen:
            self._seen = under_way
            told.append(f"{100 * done / self._total:.0f} % of all steps")
        if long := _longest(self._running(), _PLAIN):
            named = ", ".join(f"{in_a_line(label)} ({seconds:.0f} s)" for label, seconds in long)
            told.append(f"running: {named}")
        if told:
            self._print(f"[{self._finished}/{self._total}, {self._left(done)}] {'; '.join(told)}")

    def _left(self, done: float) -> str:
        """At the speed so far, of which what was done before is no part."""
        came = done - self._begun
        if came <= 0:
            return "time left unknown"
        left = (time.monotonic() - self._start) / came * (self._total - done)
        return f"{max(left, 0.0):.0f} s left"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
