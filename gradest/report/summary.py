"""What a run came to, in a few lines: the first rows of its rankings, as the report has them.

The parts are those of a document, but their text is plain, for a terminal: no Markdown.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gradest.quantities import between, count
from gradest.report.documents import controls
from gradest.report.documents.document import Alert, Strong, Table
from gradest.report.documents.problems import Problems
from gradest.report.frames import tables
from gradest.report.frames.curves import final
from gradest.report.frames.loaded_run import Run, read
from gradest.report.studies import properties, rankings, training_section
from gradest.report.studies.ranking import Section

Shown = str | Table

_ROWS = 5  # of a ranking
_TASKS = 8  # with a ranking
_HEADERS = ("rank", "estimator", "verdict", "bias, %", "variance", "evaluations")
_OF_TRAINING = 5  # columns: rank to test −log p(x)
_READING = "By mse, or by variance where g is unknown; bias in % of ‖g‖; 95 % intervals."


def summary(folder: Path) -> Iterator[Shown]:
    """Of the run in `folder`, whose tables are written.

    A ranking for each task, in log α where that was measured; what properties and trainings came
    to; and, before all else, controls that failed.  Raises UsageError for a folder without a run.
    """
    run = read(folder)
    yield from map(Alert, failed_controls(run))
    yield from _properties(run.further.properties)
    yield from _trainings(run.further.points)
    yield from _tasks(run)


def failed_controls(run: Run) -> list[str]:
    """A line for each."""
    return [f"control failed: {said}" for said in controls.failures(run.frame, run.described)]


def _tasks(run: Run) -> Iterator[Shown]:
    found = rankings.found(run, Problems())  # the report has told of what fails
    ranked = [each for each in found.tasks if each.rankings]
    if ranked:
        yield _READING
    for section in ranked[:_TASKS]:
        yield from _ranking(section)
    if len(ranked) > _TASKS:
        yield Strong(f"{len(ranked) - _TASKS} more tasks are ranked in the report")
    if together := [section.label for section in (*found.sweeps, *found.families)]:
        yield Strong(f"Many settings in one table of the report: {'; '.join(together)}")


def _ranking(section: Section) -> Iterator[Shown]:
    """Of the first parameter, in the finest dtype."""
    parameter, rows, _ = section.rankings[0]
    finest = min(rows["dtype"].unique(), key=tables.resolution)
    rows = rows[rows["dtype"] == finest]
    dtype = f" in {finest}" if section.rows["dtype"].nunique() > 1 else ""
    symbol = tables.SYMBOLS.get(parameter, parameter)
    yield Strong(f"{section.label}: gradient in {symbol}{dtype}")
    yield Table(_HEADERS, [_cells(row) for _, row in rows.head(_ROWS).iterrows()], left=3)
    yield _more(len(rows))


def _cells(row: pd.Series) -> list[str]:
    bias, variance = (
        between(*(scale * row[f"{column}{end}"] for end in ("_low", "_high")))
        for column, scale in (("relative_bias", 100), ("variance", 1))
    )
    rank = "" if pd.isna(row["rank"]) else count(row["rank"])
    return [rank, row["label"], row["verdict"], bias, variance, count(row["evaluations"])]


def _properties(rows: pd.DataFrame) -> Iterator[Shown]:
    if not rows.empty:
        yield Strong(": ".join(properties.verdict(rows)))


def _trainings(points: pd.DataFrame) -> Iterator[Shown]:
    if points.empty:
        return
    for task, rows in final(points[points["status"] == "ok"]):
        told = training_section.ranking(rows.head(_ROWS))
        lines = [line[:_OF_TRAINING] for line in told.rows]
        yield Strong(f"{task}: trained models, lower is better")
        yield Table(told.headers[:_OF_TRAINING], lines, told.left)
        yield _more(len(rows))


def _more(rows: int) -> str:
    """How many a ranking has that are not shown."""
    return f"and {rows - _ROWS} more in the report" if rows > _ROWS else ""
