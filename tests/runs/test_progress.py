"""What a run shows while it goes on."""

import io
import re
import sys
import threading
import time

import pytest
from rich.console import Console

from gradest.runs import progress, runner
from gradest.runs.progress import _Lines, _Live, display
from gradest.runs.training.state import ProgressFile, training_progress
from gradest.runs.training_cell import own_folder


def test_how_far_a_training_is_is_told_at_most_once_a_second(tmp_path, monkeypatch):
    assert training_progress(tmp_path / "none") == 0.0
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    file = ProgressFile(tmp_path, 40)
    file.write(10)
    assert training_progress(tmp_path) == 0.25
    file.write(20)
    assert training_progress(tmp_path) == 0.25
    now += 1.5
    file.write(20)
    assert training_progress(tmp_path) == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["headway"]


def test_a_run_reads_the_progress_of_its_trainings_under_way_alone(tmp_path, monkeypatch):
    trainings = {f"training{number}" for number in range(100)}
    assert runner._progress(tmp_path, trainings) == 0.0  # no training has begun
    for key, step in (("training3", 1), ("training50", 2), ("of_another_suite", 3)):
        ProgressFile(own_folder(tmp_path, key), 4).write(step)
    read = []
    monkeypatch.setattr(
        runner, "training_progress", lambda own: read.append(own.name) or training_progress(own)
    )
    assert runner._progress(tmp_path, trainings) == 0.75
    assert sorted(read) == ["training3", "training50"]


def test_lines_tell_the_share_of_all_steps_and_the_time_left(monkeypatch, capsys):
    now, done = 0.0, 0.5  # half of one training was done before
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = _Lines("measuring", 4, 1, lambda: done)
    lines.update()
    assert capsys.readouterr().err == ""  # nothing has come further
    now, done = 30.0, 1.5
    lines.update()
    assert capsys.readouterr().err == "[0/4, 75 s left] 38 % of all steps\n"
    now, done = 40.0, 0.5
    lines.done("a × b", "ok", "")
    assert capsys.readouterr().err == "[1/4, 100 s left] ok a × b\n"


def test_the_start_of_workers_does_not_count_for_the_time_left(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = _Lines("measuring", 10, 2, lambda: 0.0)
    for moment in (5.0, 5.5, 6.0, 6.5, 7.0):  # all wait 5 s, then one ends each half second
        now = moment
        lines.done("a", "ok", "")
    found = [line.partition(" left")[0] for line in capsys.readouterr().err.splitlines()]
    assert found[:4] == [f"[{n}/10, time" for n in range(1, 5)] and found[4] == "[5/10, 2 s"
    slow = _Lines("measuring", 10, 2, lambda: 0.0)
    for moment in (607.0, 608.0):  # two that take ten minutes, and end together
        now = moment
        slow.done("a", "ok", "")
    assert "[2/10, 2404 s left]" in capsys.readouterr().err


def test_after_a_hundred_steps_there_is_a_line_a_second_and_each_that_failed(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = _Lines("measuring", 2000, 1, lambda: 0.0)
    for n in range(2000):
        now = n / 100
        lines.done(f"cell{n}", "failed" if n == 150 else "skipped" if n % 2 else "ok", "")
    found = capsys.readouterr().err.splitlines()
    assert len(found) in range(120, 125) and sum("failed cell150" in line for line in found) == 1
    assert found[0].endswith("ok cell0") and found[-1].endswith("0 s left] skipped cell1999")


def test_without_a_terminal_a_thread_looks_again_and_again_and_then_ends(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PLAIN", 0.01)
    done = [0.0]

    def under_way():
        done[0] = min(done[0] + 0.1, 0.9)
        return done[0]

    before = threading.active_count()
    with display("measuring", 2, 1, under_way) as shown:
        time.sleep(0.3)
        shown.done("a", "failed", "why")
    assert threading.active_count() == before
    lines = capsys.readouterr().err.splitlines()
    assert any("% of all steps" in line for line in lines) and "failed a: why" in lines[-1]


def test_a_terminal_shows_the_steps_of_what_is_under_way(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(
        progress, "Console", lambda file: Console(file=file, force_terminal=True, width=150)
    )
    with display("measuring", 4, 2, lambda: 1.0) as shown:
        shown.done("a", "ok", "")
    text = stream.getvalue()
    assert "1/4 done" in text and "50%" in text and "2 running, 0 failed" in text
    assert isinstance(shown, _Live)


def test_nobody_is_told_of_a_broken_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert training_progress(tmp_path / "file") == 0.0
    with pytest.raises(OSError):
        ProgressFile(tmp_path / "file", 2).write(1)


def test_what_runs_is_named(monkeypatch, capsys):
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    running = {"a × b": 95.0, "c\x1b[2J": 31.0, "d": 3.0}
    lines = _Lines("measuring", 4, 1, lambda: 0.0, lambda: running)
    lines.update()
    told = "[0/4, time left unknown] running: a × b (95 s), c\\x1b[2J (31 s)\n"
    assert capsys.readouterr().err == told


def test_a_terminal_names_what_runs_and_shows_no_control_characters(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(
        progress, "Console", lambda file: Console(file=file, force_terminal=True, width=150)
    )
    with display("measuring", 4, 2, running=lambda: {"slow \x1b]0;x": 12.0}) as shown:
        shown.done("a", "failed", "\x1b[2J\x9b gone")
    text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())  # without colours
    assert "12 s  slow \\x1b]0;x" in text and "1 running, 1 failed" in text
    assert "failed" in text and "\\x1b[2J\\x9b gone" in text and "\x1b[2J" not in text
