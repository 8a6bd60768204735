"""The rankings of a run: of every task, and of all settings of a sweep or of nested factors."""

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradest.report.frames import budget, tables
from gradest.report.frames.nested_factors import Family
from gradest.report.frames.problems import Problems
from gradest.report.frames.sweeps import Sweep

SUMMARY, CROSSOVERS, OVERVIEW = "summary", "crossovers", "overview"
RESERVED = (SUMMARY, CROSSOVERS, OVERVIEW)  # names in tables/ that no task can take


class Ranking(NamedTuple):
    """The ranked rows for one parameter, and the name of their file in tables/."""

    parameter: str
    rows: pd.DataFrame
    name: str

    @property
    def alone(self) -> bool:
        """Whether no other ranking is in the file."""
        return self.name != SUMMARY


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


def rank_tasks(frame: pd.DataFrame, problems: Problems) -> list[Section]:
    """Rank every task in annotated rows that belong to no sweep and no family.

    Rankings that fail are reported to `problems`.
    """
    parts = list(tables.sections(frame))
    taken = set(RESERVED)
    sections = []
    for label, rows in parts:
        rankings = []
        for parameter in tables.parameters(rows):
            own = f"{label}-{parameter}"
            name = unused_name(own, taken) if len(parts) <= tables.FEW_TASKS else SUMMARY
            what = f"the ranking {name if name != SUMMARY else own}"
            ranked = problems.attempt(what, partial(_ranked, rows, parameter, "dtype"), None)
            if ranked is not None:
                rankings.append(Ranking(parameter, ranked, name))
        sections.append(Section(label, rows, rankings))
    return sections


def rank_run(
    tasks: list[Section], sweeps: Sequence[Sweep], families: Sequence[Family], problems: Problems
) -> Rankings:
    """The rankings of single tasks, as `rank_tasks` has them, with all others.

    Rankings that fail are reported to `problems`.
    """
    return Rankings(
        tasks,
        problems.attempt("sweeps", lambda: [_rank_settings(each) for each in sweeps], []),
        problems.attempt("nested levels", lambda: [_rank_settings(each) for each in families], []),
        problems.attempt("crossovers", lambda: _crossovers(tasks), _crossovers([])),
    )


def unused_name(label: str, taken: set[str]) -> str:
    """A file name made from a label, which is none of those taken, and is added to them.

    Names that differ in case alone count as one, as in some file systems.
    """
    name = re.sub(r"[^\w.=]+", "-", label, flags=re.ASCII)[-100:].strip("-.")
    numbered = (f"{name}-{n}" for n in range(2, len(taken) + 3))
    found = next(each for each in (name, *numbered) if each.lower() not in taken)
    taken.add(found.lower())
    return found


def _rank_settings(settings: Sweep | Family) -> Section:
    """The rankings of all settings, one below the other."""
    rankings = [
        Ranking(parameter, _ranked(settings.rows, parameter, "task", "task_params"), SUMMARY)
        for parameter in tables.parameters(settings.rows)
    ]
    return Section(settings.label, settings.rows, rankings)


def _ranked(rows: pd.DataFrame, parameter: str, *within: str) -> pd.DataFrame:
    return tables.rank_rows(tables.measured_rows(rows, parameter), within)


def _crossovers(sections: Sequence[Section]) -> pd.DataFrame:
    """Where biased rows are overtaken, in every section and parameter; log α comes first."""
    columns = ["task", "task_params", "task_label", "parameter", *budget.COLUMNS]
    every = [(each.label, ranking) for each in sections for ranking in each.rankings]
    if not every:
        return pd.DataFrame(columns=columns)
    lengths = [len(ranking.rows) for _, ranking in every]
    rows = pd.concat([ranking.rows for _, ranking in every], ignore_index=True)
    places = pd.DataFrame({"number": np.repeat(np.arange(len(every)), lengths)})
    rows["place"] = places.assign(dtype=rows["dtype"]).groupby(["number", "dtype"]).ngroup()
    rows["task_label"] = np.repeat([label for label, _ in every], lengths)
    rows["parameter"] = np.repeat([ranking.parameter for _, ranking in every], lengths)
    own = rows.drop_duplicates("place").set_index("place")[columns[:4]]
    found = budget.crossovers_within(rows).join(own, on="place")
    order = {name: n for n, name in enumerate(tables.SYMBOLS)}
    by = found["parameter"].map(lambda p: order.get(p, len(order)))
    return found[columns].iloc[by.argsort(kind="stable")]
