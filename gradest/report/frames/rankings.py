"""The rankings of a run: of every task, and of all settings of a sweep or of nested factors."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradest.report.frames import budget, tables
from gradest.report.frames.nested_factors import Family
from gradest.report.frames.problems import Problems
from gradest.report.frames.sweeps import Sweep, outside_sweeps
from gradest.support import write_frame

_SUMMARY, CROSSOVERS = "summary.csv", "crossovers.csv"
RESERVED = ("summary", "crossovers")  # names in tables/ that no task can take


class Ranking(NamedTuple):
    """The ranked rows for one parameter, and their file in tables/."""

    parameter: str
    rows: pd.DataFrame
    file: str


class Section(NamedTuple):
    """All rows of a task with its params, or of many settings, with a ranking for each parameter.

    There are no rankings where nothing was measured.
    """

    label: str
    rows: pd.DataFrame
    rankings: list[Ranking]


class Rankings(NamedTuple):
    """Sections for single tasks, sweeps and families, and where biased estimators are overtaken."""

    tasks: list[Section]
    sweeps: list[Section]
    families: list[Section]
    crossovers: pd.DataFrame

    @property
    def sections(self) -> list[Section]:
        return [*self.tasks, *self.sweeps, *self.families]


def rank_run(
    single: pd.DataFrame, sweeps: Sequence[Sweep], families: Sequence[Family], problems: Problems
) -> Rankings:
    """Rank the annotated rows of a run; `single` are those of no family.

    Rankings that fail are reported to `problems`.
    """
    tasks = _rank_tasks(outside_sweeps(single), problems)
    return Rankings(
        tasks,
        problems.attempt("sweeps", lambda: [_rank_settings(each) for each in sweeps], []),
        problems.attempt("nested levels", lambda: [_rank_settings(each) for each in families], []),
        problems.attempt("crossovers", lambda: _crossovers(tasks), _crossovers([])),
    )


def write_tables(rankings: Rankings, folder: Path, problems: Problems) -> None:
    """Write every ranking, unrounded; the summary holds them one below the other."""
    every = [ranking for section in rankings.sections for ranking in section.rankings]
    own = [each for each in every if each.file != _SUMMARY]
    frames = {each.file: tables.published_rows(each.rows) for each in own}
    if every:
        parts = [tables.published_rows(each.rows, summary=True) for each in every]
        frames[_SUMMARY] = pd.concat(parts)
    if not rankings.crossovers.empty:
        frames[CROSSOVERS] = rankings.crossovers.drop(columns="task_label")
    for name, frame in frames.items():
        for suffix in (".csv", ".parquet"):
            path = (folder / name).with_suffix(suffix)
            problems.attempt(f"tables/{path.name}", partial(write_frame, path, frame), None)


def unused_name(label: str, taken: Sequence[str]) -> str:
    """A file name made from a label that differs from those taken, also where case is ignored."""
    name = re.sub(r"[^\w.=]+", "-", label, flags=re.ASCII)[-100:].strip("-.")
    lower = {other.lower() for other in taken}
    candidates = [name, *(f"{name}-{n}" for n in range(2, len(taken) + 2))]
    return next(each for each in candidates if each.lower() not in lower)


def _rank_tasks(frame: pd.DataFrame, problems: Problems) -> list[Section]:
    names: list[str] = []
    sections = []
    for label, rows in tables.sections(frame):
        rankings = []
        for parameter in tables.parameters(rows):
            names.append(unused_name(f"{label}-{parameter}", [*names, *RESERVED]))
            what = f"the ranking {names[-1]}"
            ranked = problems.attempt(what, partial(_rank_by_dtype, rows, parameter), None)
            if ranked is not None:
                rankings.append(Ranking(parameter, ranked, f"{names[-1]}.csv"))
        sections.append(Section(label, rows, rankings))
    return sections


def _rank_by_dtype(rows: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """The ranked rows of one task; each dtype is ranked by itself."""
    parts = tables.measured_rows(rows, parameter).groupby("dtype", sort=False)
    return pd.concat([tables.rank_rows(part) for _, part in parts])


def _rank_settings(settings: Sweep | Family) -> Section:
    """The rankings of all settings, one below the other."""
    rankings = [
        Ranking(parameter, _rank_each(settings.rows, parameter), _SUMMARY)
        for parameter in tables.parameters(settings.rows)
    ]
    return Section(settings.label, settings.rows, rankings)


def _rank_each(rows: pd.DataFrame, parameter: str) -> pd.DataFrame:
    parts = [part for _, part in tables.sections(tables.measured_rows(rows, parameter))]
    return pd.concat([tables.rank_rows(part) for part in parts])


def _crossovers(sections: Sequence[Section]) -> pd.DataFrame:
    """Where biased rows are overtaken, in every section and parameter; log α comes first."""
    parts = [
        budget.crossovers(part).assign(
            task=section.rows["task"].iloc[0],
            task_params=section.rows["task_params"].iloc[0],
            task_label=section.label,
            parameter=each.parameter,
        )
        for section in sections
        for each in section.rankings
        for _, part in each.rows.groupby("dtype", sort=False)
    ]
    columns = ["task", "task_params", "task_label", "parameter", *budget.COLUMNS]
    if not parts:
        return pd.DataFrame(columns=columns)
    order = {name: n for n, name in enumerate(tables.SYMBOLS)}
    every = pd.concat([each for each in parts if not each.empty] or parts[:1])
    by = every["parameter"].map(lambda p: order.get(p, len(order)))
    return every[columns].iloc[by.argsort(kind="stable")]
