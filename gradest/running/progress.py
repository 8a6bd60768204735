"""What a run shows while it goes on: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display(Protocol):
    """Told of every step; `done` after a cell, `advance` after a step without news."""

    def done(self, label: str, status: str, detail: str) -> None: ...

    def advance(self) -> None: ...


@contextmanager
def display(what: str, total: int, workers: int) -> Iterator[Display]:
    """Shows progress through `total` steps of which `workers` run at a time, on standard error."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _Lines(what, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[running]} running, {task.fields[failed]} failed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Live(progress, what, total, workers)


class _Live:
    def __init__(self, progress: Progress, what: str, total: int, workers: int) -> None:
        self._progress, self._total, self._workers = progress, total, workers
        self._finished = self._failed = 0
        self._bar = progress.add_task(what, total=total, running=min(workers, total), failed=0)

    def done(self, label: str, status: str, detail: str) -> None:
        if status == "failed":
            self._failed += 1
            self._progress.console.print(f"[red]failed[/red] {escape(label)}: {escape(detail)}")
        self.advance()

    def advance(self) -> None:
        self._finished += 1
        running = min(self._workers, self._total - self._finished)
        self._progress.update(self._bar, advance=1, running=running, failed=self._failed)


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._finished = 0
        self._start = time.monotonic()

    def done(self, label: str, status: str, detail: str) -> None:
        self._finished += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self._finished * (self._total - self._finished)
        tail = f": {detail}" if detail else ""
        print(
            f"[{self._finished}/{self._total}, {left:.0f} s left] {status} {label}{tail}",
            file=sys.stderr,
            flush=True,
        )

    def advance(self) -> None:
        self._finished += 1
        if self._finished == self._total:
            elapsed = time.monotonic() - self._start
            print(
                f"{self._what}: {self._total} steps in {elapsed:.0f} s", file=sys.stderr, flush=True
            )
