"""What a run says at its end: short rankings, plain where there is no terminal; and --quiet."""

import io
import sys

import pandas as pd
import pytest
from rich.console import Console

from gradest.cli import main
from gradest.report.documents import terminal
from gradest.report.documents.document import Strong, Table
from gradest.report.frames.loading import load_run
from gradest.report.terminal_summary import failed_controls, summarize_run
from gradest.runs.measurement_tables import measurements_frame
from gradest.runs.progress import display, quietly
from gradest.runs.training.results import COLUMNS as TRAINING
from gradest.support.files import write_frame, write_json
from gradest.support.numbers import between
from tests.report.points import training
from tests.report.rows import row

LONG = "decoupled_straight_through (backward_temperature=0.25, forward_temperature=0.5)"


def write(folder, rows, **run):
    write_frame(folder / "measurements.parquet", measurements_frame(list(rows)))
    write_json(folder / "run.json", {"suite": "demo", **run})
    return [part for part in summarize_run(load_run(folder)) if part]


def output(parts, capsys):
    terminal.show(parts)
    return capsys.readouterr().out


def on_a_terminal(parts, monkeypatch, width=80, colour=None):
    stream = io.StringIO()

    def console(file, highlight):
        return Console(
            file=stream,
            force_terminal=True,
            width=width,
            highlight=highlight,
            color_system=colour,
            legacy_windows=False,
        )

    monkeypatch.setattr(terminal, "Console", console)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.show(parts)
    return stream.getvalue()


def test_each_task_has_its_first_five_with_ties_and_how_many_more(tmp_path):
    names = "abcdefg"
    rows = [row(name, variance=1 + n // 2, bias_sq=0.01) for n, name in enumerate(names)]
    rows += [row(name, parameter="alpha", variance=9 - n) for n, name in enumerate(names)]
    rows.append(row("a", task="other"))
    _, heading, table, more, other, single = write(tmp_path, rows)
    assert heading == "toy: gradient in log α" and other == "other: gradient in log α"
    assert [line[:2] for line in table.rows] == [
        ["1", "a"],
        ["1", "b"],
        ["3", "c"],
        ["3", "d"],
        ["5", "e"],
    ]
    assert table.rows[0][2:] == ["unbiased", "19.5–20.5", "0.95–1.05", "0.96–1.06", "1"]
    assert more == "and 2 more in the report" and len(single.rows) == 1


def test_many_tasks_are_counted_rather_than_shown(tmp_path):
    parts = write(tmp_path, [row(task=f"task{n}") for n in range(11)])
    assert sum(isinstance(part, Table) for part in parts) == 8
    assert parts[-1] == "3 more tasks are ranked in the report"


def test_sweeps_and_nested_levels_are_named(tmp_path):
    bits = [0.1, 0.25, 0.5, 0.8, 0.95]
    size = {"task": "bit", "latents": 1, "categories": 2}
    rows = [row(task_params={"theta": [theta]}, **size) for theta in bits]
    rows += [row(task="net", task_params={"minibatch": n}) for n in range(3)]
    (line,) = write(tmp_path, rows, nested=["minibatch"])
    assert "bit over 5 values of theta; net over 3 settings of minibatch" in line


def test_properties_and_trainings_have_their_own(tmp_path):
    points = [p for n in range(7) for p in training(f"e{n}", 20 + n)]
    write_frame(tmp_path / "training.parquet", pd.DataFrame(points, columns=list(TRAINING)))
    held = pd.DataFrame({"property": ["p", "p", "<q>"], "holds": [True, True, False]})
    write_frame(tmp_path / "properties.parquet", held)
    said, heading, table, more = write(tmp_path, [])
    assert said == "1 of 3 rows do not hold: <q> (1)"
    assert heading == "vae: trained models, lower is better" and more.startswith("and 2 more")
    assert table.headers[-1] == "test −log p(x)" and table.rows[0][:2] == ["1", "e0"]
    assert "[" in table.rows[0][-1]
    held["holds"] = True
    write_frame(tmp_path / "properties.parquet", held)
    assert next(summarize_run(load_run(tmp_path))) == "Every property holds: 3 rows of 2 properties"


def test_failed_controls_come_first(tmp_path):
    controls = {"unbiased": ["exact"]}
    rows = [row("exact", verdict="biased")]
    (first, *_) = write(tmp_path, rows, controls=controls)
    assert first == failed_controls(load_run(tmp_path))[0] and isinstance(first, Strong)
    assert first.startswith("control failed: exact should be unbiased on toy, but is biased")
    (first, *_) = write(tmp_path, [row("exact")], controls=controls)
    assert "control" not in first


def test_without_a_terminal_lines_are_plain(tmp_path, capsys):
    rows = [
        row("a", {"knob": "\x1b[31mred\u202e"}),
        row("a", {"knob": "[bold]b[/bold]"}, variance=2),
    ]
    rows.append(row(LONG, variance=3.0))
    text = output(write(tmp_path, rows), capsys)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "[bold]b[/bold]" in text and "\N{REPLACEMENT CHARACTER}[31mred" in text
    (line,) = (line for line in text.splitlines() if "decoupled" in line)
    assert LONG in line  # a row is a line, whatever its length
    assert text.isascii() or not set(text) & set("─│┃━┏╭")


@pytest.mark.parametrize("width", [80, 72])
def test_a_terminal_is_as_wide_as_it_is_and_names_are_whole(width, tmp_path, monkeypatch):
    other = LONG.replace("0.5", "0.55")
    bounds = {"bias_sq": 0.01, "verdict": "inconclusive", "evaluations": 1000}
    rows = [row(name, variance=1e-7, **bounds) for name in (LONG, other)]
    text = on_a_terminal(write(tmp_path, rows), monkeypatch, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    column = _second_column(text)
    assert "".join(column.split()) == "estimator" + "".join(f"{LONG}{other}".split())


def _second_column(text):
    """All of it, put together again; it is as wide as the gap between its neighbours' headers."""
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("rank"))
    start = lines[at].index("estimator")
    end = next(line.index("inconc") for line in lines if "inconc" in line)
    return " ".join(line[start:end].strip() for line in lines[at:])


def test_a_terminal_shows_no_markup_and_no_control_sequences_of_names(tmp_path, monkeypatch):
    rows = [row("a", {"knob": "\x1b[2J"}), row("a", {"knob": "[red]b[/red]"}, variance=2.0)]
    text = on_a_terminal(write(tmp_path, rows), monkeypatch, colour="standard")
    assert "\x1b[2J" not in text and "[red]b[/red]" in text
    assert "\x1b[1m" in text  # headings are bold


def test_ranges_are_as_precise_as_intervals():
    said = {
        (0.3141, 0.3342): "0.314–0.334",
        (0.0, 0.0): "0",
        (12.3, 12.3): "12.3",
        (float("nan"), float("nan")): "n/a",
        (3.14e-7, 3.34e-7): "(3.14–3.34) × 10⁻⁷",
        (0.0, float("inf")): "∞",
    }
    assert {ends: between(*ends) for ends in said} == said


def test_quiet_displays_tell_failures_alone(capsys):
    with quietly(), display("measuring", 2, 1) as message:
        message.done("a", "ok", "")
        message.done("b", "failed", "why")
        message.advance()
    assert capsys.readouterr().err == "failed b: why\n"
    with quietly(False), display("measuring", 1, 1) as message:
        message.done("a", "ok", "")
    assert "ok a" in capsys.readouterr().err


SUITE = """\
replicates: 100
timed: false
parameters: [log_alpha]
controls: {unbiased: [exact, straight_through]}
tasks: [categorical]
estimators: [exact, straight_through]
"""


def test_a_run_ends_with_its_summary_and_quiet_with_failures_and_the_path(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "mine.yaml").write_text(SUITE)
    call = ["--suite", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    failed = "control failed: straight_through should be unbiased on categorical"
    assert main(call) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 ok, 0 skipped, 0 failed" and lines[2].startswith(failed)
    assert any(line.split()[:3] == ["1", "exact", "unbiased"] for line in lines)
    assert lines[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<p class="alert"><strong>CONTROLS FAILED' in page
    assert main([*call, "--quiet", "--fresh"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{lines[-1]}\n"
    assert err.startswith(failed) and err.count("\n") == 1
    assert main(["--report", str(tmp_path / "out")]) == 1  # the run is no better for that
    assert capsys.readouterr().err.startswith(failed)
