"""What a single measurement shows while it goes on, and where it shows nothing."""

import io
import re
import sys
import time
import types

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob, nabla, sample
from gradest.errors import UsageError
from gradest.measurement import progress
from gradest.measurement.progress import advance, display, phase
from gradest.measurement.reference import ReferencePrecision
from gradest.runs.measurement_cell import MeasuringCell


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Slow(Estimator):
    """Its steps of adapt take a while."""

    name = "slow"
    adapt_steps = 4
    pause = 0.02

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)
        return f(z) + f(z) * nabla(log_prob(logits, z))

    def adapt(self, logits: Tensor, f: Cost) -> None:
        time.sleep(self.pause)


@pytest.fixture
def task() -> Task:
    return gradest.make_task("bernoulli")


@pytest.fixture
def stderr(monkeypatch):
    """Puts a stream in the place of standard error, and shows progress at once."""

    def replaced(terminal: bool, patience: float = 0.0) -> Stream:
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        monkeypatch.setattr(progress, "_LIVE", 0.01)
        monkeypatch.setattr(progress._Terminal, "seconds", 0.01)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        return stream

    return replaced


def output(stream: Stream) -> str:
    """What was written, without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_a_terminal_shows_the_phase_how_far_and_the_time_left(stderr, task):
    stream = stderr(terminal=True)
    gradest.measure(Slow(), task)
    text = output(stream)
    assert "slow on bernoulli" in text
    assert "adapting" in text and "2 of 4" in text
    assert re.search(r"adapting [━╸╺]+ +2 of 4, 0:0\d so far, 0:0\d left", text)
    assert stream.getvalue().endswith("\x1b[2K")  # the line is gone in the end


def test_what_takes_less_than_two_seconds_shows_nothing(stderr, task):
    assert progress._PATIENCE == 2
    stream = stderr(terminal=True, patience=2.0)
    gradest.measure(Slow(), task)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("terminal", "choice"), [(False, None), (False, False), (True, False)])
def test_nothing_is_shown_where_nobody_looks_or_it_is_not_wanted(stderr, task, terminal, choice):
    stream = stderr(terminal)
    gradest.measure(Slow(), task, progress=choice)
    gradest.compare(Slow(), Slow(), task, progress=choice)
    assert stream.getvalue() == ""


def test_it_can_be_asked_for_in_plain_lines(stderr, task, monkeypatch):
    stream = stderr(terminal=False, patience=60.0)
    monkeypatch.setattr(progress._Lines, "seconds", 0.05)
    gradest.measure(Slow(), task, progress=True)
    assert "\x1b" not in stream.getvalue()
    assert re.search(
        r"^slow on bernoulli: adapting, [123] of 4, 0:0\d so far, 0:0\d left$",
        stream.getvalue(),
        re.MULTILINE,
    )


@pytest.mark.parametrize("given", [1, 0, "yes", "False", 2.0, torch.tensor(True)])
def test_it_is_true_false_or_none(task, given):
    reinforce = gradest.make_estimator("reinforce")
    for call in (
        lambda: gradest.measure(reinforce, task, progress=given),
        lambda: gradest.compare(reinforce, reinforce, task, progress=given),
        lambda: gradest.measure_reference(task, progress=given),
    ):
        with pytest.raises(
            UsageError, match=r"^progress = .*; expected True, False, or None"
        ) as message:
            call()
        assert "\n" not in str(message.value)


class Looks:
    """A view that keeps what it is shown."""

    seconds = 0.001

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def draw(self, work: progress._Work) -> None:
        names, counted = work.current()
        if counted is not None:
            self.seen.append((names, counted.done, counted.total))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def looks(monkeypatch) -> Looks:
    view = Looks()
    monkeypatch.setattr(progress, "_view", lambda stream, always: view)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    return view


class Slowed(Task):
    """Each evaluation of f takes a while, so that every phase is seen."""

    name = "slowed"

    def problem(self, batch=None) -> Problem:
        logits = torch.tensor([[[0.3, -0.2], [0.1, 0.4], [0.0, 0.2]]], dtype=torch.float64)

        def cost(z: Tensor) -> Tensor:
            time.sleep(0.004)
            return (z[..., 0] * torch.tensor([1.0, -0.5, 2.0]).to(z)).sum(-1).square()

        return Problem(logits, Cost(cost))


def test_every_long_part_of_a_measurement_is_a_phase(looks):
    gradest.measure(Slow(), Slowed(), dtype=torch.float32)
    precision = gradest.Precision(variance=0.5)
    gradest.measure(
        gradest.make_estimator("concrete"), Slowed(), precision=precision, adapt_steps=0
    )
    names = {name for name, *_ in looks.seen}
    assert {
        "adapting in both precisions",
        "adapting",
        "true gradient",
        "outcomes of the draws",
        "planning, replicates",
        "replicates",
    } <= names
    assert all(0 <= done <= total for _, done, total in looks.seen)
    assert looks.opened == looks.closed == 3  # drift and measurement, and another measurement


def test_looks_at_the_variance_do_not_hide_how_far_the_adapting_is(looks):
    gradest.measure(Slow(), Slowed(), enumerate_draws=False)
    adapting = [done for name, done, total in looks.seen if name == "adapting"]
    assert adapting == sorted(adapting) and max(adapting) >= 3
    assert all(total == 4 for name, _, total in looks.seen if name == "adapting")
    assert not any("adapting, " in name for name, *_ in looks.seen)


@pytest.mark.slow
def test_what_consists_of_measurements_has_one_display(looks):
    gradest.compare(
        *(gradest.make_estimator(name) for name in ("reinforce", "concrete")),
        Slowed(),
        replicates=2000,
    )
    gradest.measure_reference(Slowed(), ReferencePrecision(max_evaluations=10_000))
    assert looks.opened == looks.closed == 2
    assert any("choosing an estimator" in name for name, *_ in looks.seen)


def test_silence_holds_for_what_is_within(looks):
    with display("outer", False):
        gradest.measure(Slow(), Slowed())
    assert looks.opened == 0


def test_a_cell_of_a_suite_is_silent(looks):
    cell = MeasuringCell(
        task="bernoulli",
        task_knobs={},
        estimator="reinforce",
        estimator_knobs={},
        seed=0,
        replicates=64,
        precision=None,
        enumerate_draws=None,
        adapt_steps=0,
        dtype="float64",
        tolerant=False,
        device="cpu",
        code={},
        task_version=1,
        estimator_version=1,
    )
    cell.outcome(gradest.plugins.registry.Registry.load(), None, None)
    assert looks.opened == 0


@pytest.mark.parametrize("where", ["open", "draw", "close"])
def test_a_display_that_fails_ends_no_measurement(looks, monkeypatch, where):
    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(looks, where, broken)
    assert gradest.measure(Slow(), Slowed()).row()["verdict"] == "unbiased"


def test_a_failed_measurement_leaves_no_display_behind(looks):
    class Failing(Slow):
        def adapt(self, logits: Tensor, f: Cost) -> None:
            raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        gradest.measure(Failing(), Slowed())
    assert looks.opened == looks.closed <= 1
    assert progress._current.get() is None


def test_outside_a_display_nothing_is_told():
    with phase("anything", 3):
        advance()
    assert progress._current.get() is None


def test_standard_error_may_be_missing_closed_or_odd(monkeypatch, task):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, object()):
        monkeypatch.setattr(sys, "stderr", stream)
        for choice in (None, False, True):
            gradest.measure(Slow(), task, adapt_steps=0, progress=choice)


def notebook(monkeypatch, kernel: object) -> list[str]:
    """Puts an IPython in place whose displays are listed."""
    texts: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            texts.append(data["text/plain"])

    def show(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = show
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return texts


def test_a_notebook_shows_it_below_the_cell_and_clears_it(stderr, monkeypatch, task):
    stream = stderr(terminal=False)
    monkeypatch.setattr(progress._Notebook, "seconds", 0.01)
    texts = notebook(monkeypatch, kernel=object())
    gradest.measure(Slow(), task)
    assert any(
        re.fullmatch(r"slow on bernoulli: adapting, 2 of 4, .* so far, .* left", text)
        for text in texts
    )
    assert texts[-1] == "" and stream.getvalue() == ""


def test_ipython_without_a_kernel_is_no_notebook(stderr, monkeypatch, task):
    stream = stderr(terminal=False)
    texts = notebook(monkeypatch, kernel=None)
    gradest.measure(Slow(), task)
    assert texts == [] and stream.getvalue() == ""


def test_time_is_written_as_on_a_clock():
    assert [progress._duration(s) for s in (0.4, 59.6, 61, 3600, 7325)] == [
        *("0:00", "1:00", "1:01", "1:00:00", "2:02:05")
    ]
