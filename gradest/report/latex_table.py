"""The table of a ranking for a paper, from a frame: `gradest.latex_table`."""

import re
from collections.abc import Sequence

import pandas as pd

from gradest.errors import UsageError
from gradest.measurement import LOG_ALPHA
from gradest.report.frames import tables
from gradest.report.frames.rankings import Ranking, Section
from gradest.report.frames.reading import as_results
from gradest.report.studies.ranking_table import PAPER_COLUMNS, ranking_environment
from gradest.support import suggestion


def latex_table(
    frame: pd.DataFrame,
    parameter: str = LOG_ALPHA,
    columns: Sequence[str] = PAPER_COLUMNS,
    caption: str = "",
) -> str:
    """The estimators of a frame on one task, ranked, as a LaTeX table (booktabs) for `\\input`.

    The frame is one of `read_results`, or a part of its rows: they are ranked among themselves, as
    `rank` does, and the best of them are bold.  `columns` are some of bias, variance, mse,
    evaluations and work (variance × evaluations); three fit into the column of a page with two.
    `caption` is plain text and replaces the one that names task and parameter.  The label is
    `tab:<task>-<parameter>`.

    Raises UsageError for rows of several tasks or runs, for rows without results, and for unknown
    columns.
    """
    frame = as_results(frame)
    for column in columns:
        if column not in PAPER_COLUMNS:
            raise UsageError(
                f"latex_table: unknown column {column!r}{suggestion(column, PAPER_COLUMNS)}; "
                f"available: {', '.join(PAPER_COLUMNS)}"
            )
    for name, kind in (("task_label", "task"), ("run", "run")):
        if name in frame and len(values := frame[name].unique()) > 1:
            raise UsageError(
                f"latex_table: expected rows of one {kind}, got {len(values)}; select some, as in "
                f"frame[frame[{name!r}] == {str(values[0])!r}]"
            )
    rows = tables.measured_rows(frame, parameter)
    if rows.empty:
        raise UsageError(f"latex_table: no row has results for the parameter {parameter!r}")
    ranked = tables.rank_rows(rows, within=["dtype"])
    title = str(rows["task_label"].iloc[0])
    section = Section(title, frame, [])
    table = ranking_environment(section, Ranking(parameter, ranked, ""), columns)
    label = re.sub("[^A-Za-z0-9]+", "-", f"{title}-{parameter}").strip("-")
    return table._replace(caption=caption or table.caption).latex(f"tab:{label}")
