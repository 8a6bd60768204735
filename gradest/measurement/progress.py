"""The progress display of a single measurement: its phase, the steps done and the time left.

The computation counts phases and steps; a thread reads the counts at intervals and draws.  So
counting costs next to nothing, and the display stays up to date in one long step.
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
_LIVE, _PLAIN = 0.5, 10.0  # seconds between two updates
_BAR = 30  # columns


class Phase:
    """A part of the work; `total` is the number of its steps, where it is known."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total = name, total
        self.done = 0
        self._start = time.monotonic()

    @property
    def share(self) -> float | None:
        """The part of the steps that is done, from 0 to 1; None where their number is unknown."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """The time left in seconds, at the speed so far; None before the first step."""
        if not self.share:
            return None
        return (time.monotonic() - self._start) * (1 / self.share - 1)


class _Work:
    """A measurement and its present phases, from the outermost to the innermost."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.phases: list[Phase] = []
        self.start = time.monotonic()

    def current(self) -> tuple[str, Phase | None]:
        """The names of the phases, and the phase whose steps are shown.

        That is the outermost phase with steps, since its parts say less about the time left.
        """
        phases = self.phases.copy()  # the thread that draws is not the one that computes
        names = []
        for each in phases:
            names.append(each.name)
            if each.total:
                return ", ".join(names), each
        return ", ".join(names), None


class _View(Protocol):
    seconds: float  # between two updates

    def open(self) -> None: ...

    def draw(self, work: _Work) -> None: ...

    def close(self) -> None: ...


_current: ContextVar[_Work | None] = ContextVar("progress", default=None)
_silent = _Work("")  # which is not shown


@contextmanager
def display(title: str, progress: bool | None) -> Iterator[None]:
    """Show the phases within the block on standard error, or in the notebook.

    With `progress` None they are shown after two seconds, if there is a terminal or a notebook;
    within another display, that one decides.  With True they are shown at once, in plain lines
    where there is neither; with False, not at all.  Raises UsageError for anything else.
    """
    if not (progress is None or isinstance(progress, bool)):
        raise UsageError(
            f"progress = {progress!r}; expected True, False, or None, which shows it on a terminal "
            "or in a notebook"
        )
    if progress is None and _current.get() is not None:
        yield
        return
    view = None if progress is False else _view(sys.stderr, progress is True)
    work = _silent if view is None else _Work(title)
    token = _current.set(work)
    try:
        with _draw_in_background(work, view, 0.0 if progress else _PATIENCE):
            yield
    finally:
        _current.reset(token)


@contextmanager
def phase(name: str, total: int | None = None) -> Iterator[None]:
    """Make the block a phase of `total` steps, which `advance` counts."""
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
    """Count steps of the innermost phase as done."""
    work = _current.get()
    if work is not None and work.phases:
        work.phases[-1].done += steps


@contextmanager
def _draw_in_background(work: _Work, view: _View | None, patience: float) -> Iterator[None]:
    """Draw in a thread within the block, after `patience` seconds."""
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

    # The context tells a notebook kernel which cell a display belongs to.
    context = copy_context()
    thread = threading.Thread(target=context.run, args=(watch,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _view(stream: TextIO | None, always: bool) -> _View | None:
    """A view for the terminal or the notebook; plain lines only with `always`."""
    if _in_notebook():
        return _Notebook()
    try:
        terminal = stream.isatty()
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return None
    if terminal:
        return _Terminal(stream)
    return _Lines(stream) if always else None


def _in_notebook() -> bool:
    """Whether this runs in an IPython kernel, whose front end shows displayed objects."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Terminal:
    """A line with a bar, which disappears when the work is done."""

    seconds = _LIVE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def open(self) -> None:
        # Imported here: it takes as long as a small measurement, which needs no display.
        from rich.console import Console
        from rich.live import Live

        # The streams belong to the user's process, so they are not redirected.
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

        names, phase_ = work.current()
        line = Table.grid(padding=(0, 1))
        share = None if phase_ is None else phase_.share
        bar = ProgressBar(total=1.0, completed=share or 0.0, width=_BAR, pulse=share is None)
        line.add_row(Text(_label(work, names)), bar, Text(_figures(work, phase_)))
        self._live.update(line, refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Notebook:
    """A line of text in an output of its own below the cell, which is empty in the end.

    It uses IPython's own display, since rich needs ipywidgets to redraw a line.
    """

    seconds = _LIVE

    def open(self) -> None:
        from IPython.display import display as show  # not a dependency; every notebook has it

        self._handle = show(_plain(""), raw=True, display_id=True)

    def draw(self, work: _Work) -> None:
        self._handle.update(_plain(_sentence(work)), raw=True)

    def close(self) -> None:
        self._handle.update(_plain(""), raw=True)


class _Lines:
    """A plain line at intervals."""

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
    names, phase_ = work.current()
    return f"{_label(work, names)}, {_figures(work, phase_)}"


def _label(work: _Work, names: str) -> str:
    return f"{work.title}: {names}" if names else work.title  # no names between two phases


def _figures(work: _Work, phase_: Phase | None) -> str:
    parts = []
    if phase_ is not None and phase_.share is not None:
        parts.append(f"{min(phase_.done, phase_.total):,} of {phase_.total:,}")
    parts.append(f"{_duration(time.monotonic() - work.start)} so far")
    if phase_ is not None and phase_.left is not None:
        parts.append(f"{_duration(phase_.left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
