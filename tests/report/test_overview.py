"""Many rankings in a few rows: standings, the best of each task, and the best along a sweep."""

import json

import numpy as np
import pandas as pd
import pytest

from gradest.report import plots
from gradest.report.documents import controls
from gradest.report.figures import style
from gradest.report.frames import tables
from gradest.report.frames.budget import crossovers, crossovers_within
from gradest.report.frames.overview import best_by_range, compared, overview, standings
from gradest.report.frames.problems import Problems
from gradest.report.frames.rankings import rank_run, rank_tasks
from gradest.report.frames.sweeps import find_sweeps, outside_sweeps
from gradest.runs import measurements_frame
from tests.report.rows import row

FEW = tables.FEW_TASKS


def many(count=FEW + 1):
    """Tasks on which b is best, but for the first, where a and b are too close to tell."""
    return [
        row(name, task=f"task{n}", variance=variance, verdict=verdict)
        for n in range(count)
        for name, variance, verdict in (
            ("exact", 0.0, "unbiased"),
            ("a", 2.0 if n else 1.001, "unbiased"),
            ("b", 1.0, "inconclusive"),
        )
    ]


def ranked(rows):
    frame = tables.annotate(measurements_frame(rows))
    tasks = rank_tasks(outside_sweeps(frame), Problems())
    return rank_run(tasks, find_sweeps(frame), [], Problems())


def test_the_best_of_each_task_with_those_that_share_its_rank():
    found = overview(compared(ranked(many()).tasks)).set_index("task")
    assert set(found["best"]) == {"b"} and set(found["value"]) == {1.0}
    assert found.loc["task0", ["tied", "second"]].tolist() == ["a", ""]
    assert found.loc["task1", ["tied", "second", "ratio"]].tolist() == ["", "a", 2.0]


def test_standings_count_shared_ranks_and_leave_out_what_is_zero_on_every_task():
    found = standings(compared(ranked(many()).tasks), "log_alpha").set_index("label")
    assert list(found.index) == ["b", "a"]  # ranks among all rows: exact is first
    assert found["best"].to_dict() == {"b": FEW + 1, "a": 1}
    assert found.loc["a", ["median_ratio", "largest_ratio"]].tolist() == [2.0, 2.0]
    assert found.loc["b", ["tasks", "inconclusive", "unbiased"]].tolist() == [FEW + 1, FEW + 1, 0]


def test_an_estimator_that_is_zero_somewhere_competes():
    rows = [row("a", task="one", variance=0.0), row("b", task="one", variance=1.0)]
    rows += [row("a", task="two", variance=3.0), row("b", task="two", variance=1.0)]
    found = overview(compared(ranked(rows).tasks))
    assert found["best"].tolist() == ["a", "b"]
    assert np.isnan(found["ratio"][0]) and found["ratio"][1] == 3.0


def test_more_tasks_than_few_share_one_file(write, tmp_path):
    text = write(many())
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {
        *(f"{name}.{suffix}" for name in ("summary", "overview") for suffix in ("csv", "parquet")),
        "overview.tex",
    }
    assert len(pd.read_csv(tmp_path / "tables" / "summary.csv")) == 3 * (FEW + 1)
    assert f"## All {FEW + 1} tasks" in text and "\n## task3\n" in text
    assert "[overview.csv](tables/overview.csv)" in text
    assert "Zero on every task, and not compared: exact." in text
    text = write(many(FEW))
    assert f"All {FEW} tasks" not in text and (tmp_path / "tables/task3-log_alpha.csv").exists()
    assert not (tmp_path / "tables" / "overview.csv").exists()


@pytest.mark.slow
def test_rankings_of_very_many_rows_are_in_the_file_alone(write, tmp_path):
    text = write(many(400))
    assert "\n## task3\n" not in text and "## All 400 tasks" in text
    assert len(pd.read_csv(tmp_path / "tables" / "summary.csv")) == 1200


def sweep(values):
    """At each value the variances of two estimators, and of one that is exact."""
    return [
        row(
            name,
            task_params={"x": float(n)},
            variance=variance,
            batch=1,
            latents=2,
            categories=4,
        )
        for n, (a, b) in enumerate(values)
        for name, variance in (("a", a), ("b", b), ("exact", 0.0))
    ]


def test_a_range_of_a_sweep_lasts_while_its_estimator_is_not_worse():
    values = [(1.0, 4.0)] * 5 + [(1.001, 1.0)] * 3 + [(4.0, 1.0)] * 6
    (section,) = ranked(sweep(values)).sweeps
    rows = compared([section])
    found = best_by_range(rows.assign(point=[point[-1] for point in rows["point"]]))
    assert found[["first", "last", "settings", "best"]].to_numpy().tolist() == [
        [0.0, 7.0, 8, "a"],
        [8.0, 13.0, 6, "b"],
    ]
    assert found["second"].tolist() == ["b", "a"] and found["ratio"].tolist() == [4.0, 4.0]


def test_the_section_and_the_figure_of_a_sweep_name_the_best(write):
    rows = sweep([(1.0, 4.0)] * 7 + [(4.0, 1.0)] * 7)
    text = write(rows)
    assert "Zero throughout, and not compared: exact." in text
    lines = [line.split("|")[1:5] for line in text.splitlines() if line.startswith("|")]
    lines = [line for line in lines if line[1].strip().startswith("**")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["0 to 6.00", "**a**", "b", "7"],
        ["7.00 to 13.0", "**b**", "a", "7"],
    ]
    figure = plots.knob_sweep(tables.annotate(measurements_frame(rows)))
    (strip,) = figure.axes[1].child_axes
    assert [text.get_text() for text in strip.texts] == ["a", "b", "lowest MSE"]
    lefts = [bar.get_x() for bar in strip.patches]
    assert lefts == [0.0, 6.5]


def test_crossovers_of_many_sections_are_those_of_each():
    rng = np.random.default_rng(0)
    parts = []
    for place in range(5):
        verdicts = ["biased", "unbiased", "unbiased", "biased", "inconclusive"]
        rows = [
            row(f"e{n}", variance=rng.uniform(1, 9), bias_sq=rng.uniform(), verdict=verdict)
            for n, verdict in enumerate(verdicts)
        ]
        frame = tables.annotate(measurements_frame(rows))
        parts.append(frame.assign(place=place, passes=1.0))
    together = crossovers_within(pd.concat(parts, ignore_index=True))
    alone = pd.concat([crossovers(part).assign(place=n) for n, part in enumerate(parts)])
    pd.testing.assert_frame_equal(together, alone[list(together)].reset_index(drop=True))
    assert len(together) == 10


def test_a_control_is_judged_on_every_task_that_has_it():
    rows = many(3)
    rows[3] |= {"verdict": "biased"}  # exact on task1
    rows = [each for n, each in enumerate(rows) if n != 6]  # none on task2
    frame = tables.annotate(measurements_frame(rows))
    assert controls.control_failures(frame, {"unbiased": ["exact"]}) == [
        "exact should be unbiased on task1, but is biased in log α.",
        "exact should be unbiased on task2, but was not run there.",
    ]


def test_a_grid_of_two_numbers_has_its_settings_in_one_sweep_each():
    rows = [
        row(task_params={"x": x, "y": y}, task="grid", latents=2, categories=4)
        for x in range(14)
        for y in range(13)
    ]
    sweeps = find_sweeps(tables.annotate(measurements_frame(rows)))
    assert [sweep.label for sweep in sweeps] == [
        f"grid (y={y}) over 14 values of x" for y in range(13)
    ]
    params = [json.loads(text)["y"] for text in sweeps[4].rows["task_params"]]
    assert params == [4] * 14


@pytest.mark.parametrize("count", [2, 9])
def test_few_estimators_have_a_colour_each(count):
    for first in range(20):
        names = [f"estimator{n}" for n in range(first, first + count)]
        styles = style.assign_styles(names)
        assert len({each.colour for each in styles.values()}) == count
        assert style.assign_styles(reversed(names)) == styles


@pytest.mark.slow
def test_long_tables_of_missing_measurements_name_some_tasks_of_a_reason(write):
    skipped = {"status": "skipped", "reason": "needs two categories"}
    rows = [row(task=f"task{n}") for n in range(201)]
    rows += [row("arm", task=f"task{n}") | skipped for n in range(201)]
    text = write(rows)
    assert "task0, task1, task2 and 198 more" in text and text.count("| skipped") == 1
