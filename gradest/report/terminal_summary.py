"""The result of a run in a few lines: the first rows of its rankings, as the report has them.

The parts are those of a document, but their text is plain, for a terminal: no Markdown.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from gradest.report.claims.judgement import judge
from gradest.report.claims.section import refutations, summary
from gradest.report.documents import controls
from gradest.report.documents.document import Alert, Strong, Table
from gradest.report.frames import tables
from gradest.report.frames.curves import final_descents, rank_final
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.rankings import Section
from gradest.runs import ORIGIN
from gradest.statistics import Interval
from gradest.support import between, count

Shown = str | Table

_ROWS = 5  # of a ranking
_TASKS = 8  # with a ranking
_HEADERS = ("rank", "estimator", "verdict", "bias, %", "variance", "MSE", "evaluations")
_TRAINING_COLUMNS = 5  # rank to test −log p(x)
_DESCENT_COLUMNS = 5  # estimator to probability
_READING = (
    "Ranked by MSE, or by variance where the exact gradient g is unknown; bias in % of ‖g‖; "
    "95 % intervals."
)


def summarize_run(run: LoadedRun) -> Iterator[Shown]:
    """The summary of a run.

    A ranking for each task, in log α where that was measured; the results of properties, trainings
    and descents; and, before all else, controls that failed.
    """
    yield from map(Alert, failed_controls(run))
    judgements = run.problems.attempt("the claims", partial(judge, run), [])
    if judgements:
        yield Strong(summary(judgements))
        yield from refutations(judgements)
    yield from _properties(run.properties)
    yield from _trainings(run.points)
    yield from _descents(run)
    yield from _tasks(run)


def failed_controls(run: LoadedRun) -> list[str]:
    """A line for each control that failed."""
    return [f"control failed: {failure}" for failure in controls.failures(run.own, run.facts)]


def failed_cells(run: LoadedRun) -> int:
    """The number of cells of any kind that failed; those left out of the report do not count."""
    curve, measurement = ["key", "seed"], ["task", "task_params", "estimator", "estimator_params"]
    measurement += ["seed", "dtype", "replicates"]
    kinds = [(run.own, measurement), (run.trainings, curve), (run.all_descents, curve)]
    kinds += [(rows, list(rows)) for rows in (run.properties, run.searches)]  # of one row each
    return sum(
        len(rows.loc[rows["status"].eq("failed"), cell].drop_duplicates())
        for rows, cell in kinds
        if "status" in rows
    )


def _tasks(run: LoadedRun) -> Iterator[Shown]:
    ranked = [each for each in run.tasks if each.rankings]
    if ranked:
        yield _READING
    for section in ranked[:_TASKS]:
        yield from _ranking(section)
    if len(ranked) > _TASKS:
        yield Strong(f"{len(ranked) - _TASKS} more tasks are ranked in the report")
    if together := [each.label for each in (*run.sweeps, *run.families)]:
        yield Strong(f"Many settings in one table of the report: {'; '.join(together)}")


def _ranking(section: Section) -> Iterator[Shown]:
    """The ranking of the first parameter, in the finest dtype."""
    parameter, rows, _ = section.rankings[0]
    finest = min(rows["dtype"].unique(), key=tables.resolution)
    rows = rows[rows["dtype"] == finest]
    dtype = f" in {finest}" if section.rows["dtype"].nunique() > 1 else ""
    symbol = tables.SYMBOLS.get(parameter, parameter)
    yield Strong(f"{section.label}: gradient in {symbol}{dtype}")
    first = rows.head(_ROWS)
    own = rows[_ROWS:][rows[ORIGIN][_ROWS:].isna() & rows[ORIGIN].notna().any()]
    shown = pd.concat([first, own])  # of a ranking beside other rows the own ones are the point
    yield Table(_HEADERS, [_line(row) for _, row in shown.iterrows()], left=3)
    yield _more(len(rows) - len(own))


def _line(row: pd.Series) -> list[str]:
    bias = Interval.of(row, "relative_bias") * 100
    variance, mse = Interval.of(row, "variance"), Interval.of(row, "mse")
    rank = "" if pd.isna(row["rank"]) else count(row["rank"])
    ends = [between(each.low, each.high) for each in (bias, variance, mse)]
    return [rank, row["label"], row["verdict"], *ends, count(row["evaluations"])]


# A study draws too: importing what that takes is left to the runs that have such rows.


def _properties(rows: pd.DataFrame) -> Iterator[Shown]:
    if not rows.empty:
        from gradest.report.studies import concrete

        yield Strong(": ".join(concrete.verdict(rows)))


def _trainings(points: pd.DataFrame) -> Iterator[Shown]:
    if points.empty:
        return
    from gradest.report.studies import training

    for task, rows in rank_final(points[points["status"] == "ok"]):
        table = training.ranking(rows.head(_ROWS))
        lines = [line[:_TRAINING_COLUMNS] for line in table.rows]
        yield Strong(f"{task}: trained models, lower is better")
        yield Table(table.headers[:_TRAINING_COLUMNS], lines, table.left)
        yield _more(len(rows))


def _descents(run: LoadedRun) -> Iterator[Shown]:
    if run.descents.empty:
        return
    from gradest.report.studies import descent

    for task, rows in final_descents(run.descents, run.maximises):
        table = descent.table(rows.head(_ROWS))
        lines = [line[:_DESCENT_COLUMNS] for line in table.rows]
        yield Strong(f"{task}: logits after {count(rows['step'].max())} steps, best first")
        yield Table(table.headers[:_DESCENT_COLUMNS], lines, table.left)
        yield _more(len(rows))


def _more(rows: int) -> str:
    """The number of rows of a ranking that are not shown."""
    return f"and {rows - _ROWS} more in the report" if rows > _ROWS else ""
