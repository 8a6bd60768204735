"""The files in tables/: rankings, unrounded, as CSV and as Parquet, and tables for papers."""

import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from gradest.report.documents.latex import Environment
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.overview import compared, overview
from gradest.report.frames.problems import Problems
from gradest.report.frames.rankings import (
    CROSSOVERS,
    OVERVIEW,
    SUMMARY,
    Rankings,
    unused_name,
)
from gradest.report.studies.study import Study
from gradest.support import write_frame, write_text


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
        frames[OVERVIEW] = problems.attempt(
            f"tables/{OVERVIEW}", lambda: overview(compared(rankings.tasks)), pd.DataFrame()
        )
    for name, frame in frames.items():
        for suffix in suffixes:
            path = folder / f"{name}{suffix}"
            problems.attempt(f"tables/{path.name}", partial(write_frame, path, frame), None)


def write_latex(run: LoadedRun, folder: Path, studies: Iterable[Study]) -> None:
    """A table for papers of each ranking, of all settings together and of trainings."""
    suite = re.sub("[^A-Za-z0-9]+", "-", str(run.facts.get("suite") or "run"))
    taken: set[str] = set()
    for study in studies:
        pieces = run.problems.attempt(
            "tables/*.tex", lambda study=study: list(study.latex(run)), []
        )
        for label, make in pieces:
            name = unused_name(label, taken)
            render = partial(_latex, make, f"tab:{suite}:{name}")
            text = run.problems.attempt(f"tables/{name}.tex", render, None)
            if text is not None:
                write_text(folder / f"{name}.tex", text)


def _latex(make: Callable[[], Environment], label: str) -> str:
    return make().latex(label)
