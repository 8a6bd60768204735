"""What a run ranks: a section for every task, and for all settings of a sweep or of a family."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradest.files import write_frame
from gradest.report.documents.problems import Problems
from gradest.report.frames import budget, sweeps, tables
from gradest.report.frames.loaded_run import Run
from gradest.report.studies import nested, swept
from gradest.report.studies.ranking import Ranking, Section

_SUMMARY, _CROSSOVERS = "summary.csv", "crossovers.csv"
OWN = ("summary", "crossovers")  # names in tables/ that no task can take


class Sections(NamedTuple):
    """Tasks one by one, sweeps and families; and where biased methods are overtaken."""

    tasks: list[Section]
    sweeps: list[Section]
    families: list[Section]
    crossovers: pd.DataFrame
    crossovers_file: str = _CROSSOVERS


def found(run: Run, problems: Problems) -> Sections:
    """What cannot be ranked is told among the problems."""
    tasks = _tasks(sweeps.apart(run.single), problems)
    return Sections(
        tasks,
        problems.attempt("sweeps", lambda: swept.sections(run.single, _SUMMARY), []),
        problems.attempt("nested levels", lambda: nested.sections(run.families, _SUMMARY), []),
        problems.attempt("crossovers", lambda: _crossovers(tasks), _crossovers([])),
    )


def write(of: Sections, folder: Path, problems: Problems) -> None:
    """Every ranking, unrounded; the summary holds them one below the other."""
    rankings = [each for s in (*of.tasks, *of.sweeps, *of.families) for each in s.rankings]
    frames = {each.file: tables.published(each.rows) for each in rankings if each.file != _SUMMARY}
    if rankings:
        every = [tables.published(each.rows, summary=True) for each in rankings]
        frames[_SUMMARY] = pd.concat(every)
    if not of.crossovers.empty:
        frames[_CROSSOVERS] = of.crossovers.drop(columns="task_label")
    for name, frame in frames.items():
        for suffix in (".csv", ".parquet"):
            path = (folder / name).with_suffix(suffix)
            problems.attempt(f"tables/{path.name}", partial(write_frame, path, frame), None)


def _tasks(frame: pd.DataFrame, problems: Problems) -> list[Section]:
    """Every task with its params; one where nothing was measured has no rankings."""
    names: list[str] = []
    sections = []
    for label, rows in tables.sections(frame):
        rankings = []
        for parameter in tables.parameters(rows):
            names.append(unused(f"{label}-{parameter}", [*names, *OWN]))
            what = f"the ranking {names[-1]}"
            ranked = problems.attempt(what, partial(_ranked, rows, parameter), None)
            if ranked is not None:
                rankings.append(Ranking(parameter, ranked, f"{names[-1]}.csv"))
        sections.append(Section(label, rows, rankings))
    return sections


def _ranked(rows: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """The rows of one task, those of each dtype by themselves."""
    parts = tables.measured(rows, parameter).groupby("dtype", sort=False)
    return pd.concat([tables.ranked(part) for _, part in parts])


def unused(label: str, taken: Sequence[str]) -> str:
    """A file name from a label, unlike those taken also where upper and lower case are one."""
    name = re.sub(r"[^\w.=]+", "-", label, flags=re.ASCII)[-100:].strip("-.")
    lower = {other.lower() for other in taken}
    candidates = [name, *(f"{name}-{n}" for n in range(2, len(taken) + 2))]
    return next(each for each in candidates if each.lower() not in lower)


def _crossovers(sections: Sequence[Section]) -> pd.DataFrame:
    """Where biased rows are overtaken, of every section and parameter; log α comes first."""
    found = [
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
    if not found:
        return pd.DataFrame(columns=columns)
    order = {name: n for n, name in enumerate(tables.SYMBOLS)}
    every = pd.concat([each for each in found if not each.empty] or found[:1])
    by = every["parameter"].map(lambda p: order.get(p, len(order)))
    return every[columns].iloc[by.argsort(kind="stable")]
