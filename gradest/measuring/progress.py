"""What a single measurement shows while it goes on: which phase it is in, how far, time left.

The computation tells of phases and steps; a thread looks at them now and then and draws.  So
telling costs next to nothing, and one long step is shown too.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Protocol, TextIO

from gradest.errors import UsageError

_PATIENCE = 2.0  # seconds before anything is shown
_LIVE, _PLAIN = 0.5, 10.0  # seconds between two looks
_BAR = 30  # columns


class Phase:
    """A part of the work, of so many steps if their number is known."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total = name, total
        self.done = 0
        self._start = time.monotonic()

    @property
    def share(self) -> float | None:
        """From 0 to 1, where the number of steps is known."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds, at the speed so far; None while there is none."""
        if not self.share:
            return None
        return (time.monotonic() - self._start) * (1 / self.share - 1)


class _Work:
    """What is measured, and the phases that it is in, from the outermost to the innermost."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.phases: list[Phase] = []
        self.start = time.monotonic()

    def shown(self) -> tuple[str, Phase | None]:
        """The names of the phases, and the one whose steps are shown.

        That is the outermost that counts any: what it consists of says less of the time left.
        """
        phases = self.phases.copy()  # the thread that looks is not the one that works
        names = []
        for each in phases:
            names.append(each.name)
            if each.total:
                return ", ".join(names), each
        return ", ".join(names), None


class _View(Protocol):
    seconds: float  # between two looks

    def open(self) -> None: ...

    def draw(self, work: _Work) -> None: ...

    def close(self) -> None: ...


_current: ContextVar[_Work | None] = ContextVar("progress", default=None)
_silent = _Work("")  # of which nothing is shown


@contextmanager
def display(title: str, progress: bool | None) -> Iterator[None]:
    """Within the block phases are shown on standard error, or in the notebook.

    `progress` None: after two seconds, if there is a terminal or a notebook; within another display
    as that one does.  True: at once, in plain lines where there is neither.  False: not at all.
    Raises UsageError for anything else.
    """
    if not (progress is None or isinstance(progress, bool)):
        raise UsageError(
            f"progress = {progress!r}: expected True, False, or None to show it on a terminal and "
            "in a notebook"
        )
    if progress is None and _current.get() is not None:
        yield
        return
    view = None if progress is False else _view(sys.stderr, progress is True)
    work = _silent if view is None else _Work(title)
    token = _current.set(work)
    try:
        with _watched(work, view, 0.0 if progress else _PATIENCE):
            yield
    finally:
        _current.reset(token)


@contextmanager
def phase(name: str, total: int | None = None) -> Iterator[None]:
    """The block is a phase of so many steps, of which `advance` tells."""
    work = _current.get()
    if work is None or work is _silent:
        yield
        return
    entered = Phase(name, total)
    work.phases.append(entered)
    try:
        yield
    finally:
        work.phases.remove(entered)


def advance(steps: int = 1) -> None:
    """So many steps of the innermost phase are done."""
    work = _current.get()
    if work is not None and work.phases:
        work.phases[-1].done += steps


@contextmanager
def _watched(work: _Work, view: _View | None, patience: float) -> Iterator[None]:
    """Within the block, after so many seconds, a thread draws."""
    if view is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        if over.wait(patience):
            return
        # A display that fails, as where the terminal is gone, must not end a measurement.
        try:
            view.open()
            try:
                view.draw(work)
                while not over.wait(view.seconds):
                    view.draw(work)
            finally:
                view.close()
        except Exception:
            return

    # A kernel knows the cell that a display belongs to by the context.
    context = copy_context()
    thread = threading.Thread(target=context.run, args=(watch,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _view(stream: TextIO | None, always: bool) -> _View | None:
    """Where progress can be seen; plain lines only where it is asked for."""
    if _in_notebook():
        return _Notebook()
    try:
        terminal = stream.isatty()
    except (AttributeError, ValueError):  # there is none, it is closed, or it is no stream
        return None
    if terminal:
        return _Terminal(stream)
    return _Lines(stream) if always else None


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this, whose front end shows what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Terminal:
    """A line with a bar, which goes when the work is done."""

    seconds = _LIVE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def open(self) -> None:
        # To import it takes as long as a small measurement, which needs no display.
        from rich.console import Console
        from rich.live import Live

        # The streams of a process that is not gradest's own are not redirected.
        self._live = Live(
            console=Console(file=self._stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def draw(self, work: _Work) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        names, shown = work.shown()
        line = Table.grid(padding=(0, 1))
        share = None if shown is None else shown.share
        bar = ProgressBar(total=1.0, completed=share or 0.0, width=_BAR, pulse=share is None)
        line.add_row(Text(_labelled(work, names)), bar, Text(_figures(work, shown)))
        self._live.update(line, refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Notebook:
    """The same in words, in a place of its own below the cell, which is empty in the end.

    By IPython's own display: rich needs ipywidgets to draw a line again.
    """

    seconds = _LIVE

    def open(self) -> None:
        from IPython.display import display as show  # a notebook has it, gradest does not need it

        self._handle = show(_plain(""), raw=True, display_id=True)

    def draw(self, work: _Work) -> None:
        self._handle.update(_plain(_sentence(work)), raw=True)

    def close(self) -> None:
        self._handle.update(_plain(""), raw=True)


class _Lines:
    """A line now and then."""

    seconds = _PLAIN

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def open(self) -> None:
        pass

    def draw(self, work: _Work) -> None:
        print(_sentence(work), file=self._stream, flush=True)

    def close(self) -> None:
        pass


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}


def _sentence(work: _Work) -> str:
    names, shown = work.shown()
    return f"{_labelled(work, names)}, {_figures(work, shown)}"


def _labelled(work: _Work, names: str) -> str:
    return f"{work.title}: {names}" if names else work.title  # between two phases there is none


def _figures(work: _Work, shown: Phase | None) -> str:
    parts = []
    if shown is not None and shown.share is not None:
        parts.append(f"{min(shown.done, shown.total):,} of {shown.total:,}")
    parts.append(f"{_duration(time.monotonic() - work.start)} so far")
    if shown is not None and shown.left is not None:
        parts.append(f"{_duration(shown.left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
