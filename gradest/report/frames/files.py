"""The rankings of a run as files: unrounded, as CSV and as Parquet."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import pandas as pd

from gradest.report.frames import tables
from gradest.report.frames.overview import compared, overview
from gradest.report.frames.problems import Problems
from gradest.report.frames.rankings import CROSSOVERS, OVERVIEW, SUMMARY, Rankings
from gradest.support import write_frame


def write_tables(
    rankings: Rankings, folder: Path, problems: Problems, suffixes: Collection[str]
) -> None:
    """Write every ranking, unrounded; the summary holds them one below the other.

    Of many tasks the overview names the best estimator of each, and none has a file of its own.
    """
    every = [ranking for section in rankings.sections for ranking in section.rankings]
    frames = {each.name: tables.published_rows(each.rows) for each in every if each.alone}
    if every:
        rows = pd.concat([each.rows for each in every])
        frames[SUMMARY] = tables.published_rows(rows, summary=True)
    if not rankings.crossovers.empty:
        frames[CROSSOVERS] = rankings.crossovers.drop(columns="task_label")
    if len(rankings.tasks) > tables.FEW_TASKS:
        frames[OVERVIEW] = overview(compared(rankings.tasks))
    for name, frame in frames.items():
        for suffix in suffixes:
            path = folder / f"{name}{suffix}"
            problems.attempt(f"tables/{path.name}", partial(write_frame, path, frame), None)
