"""The sections of a report that rank estimators on one task."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from gradest.markdown import escape
from gradest.quantities import count, number
from gradest.report.documents.document import Part
from gradest.report.documents.prose import listed
from gradest.report.frames import tables
from gradest.report.studies import cells, numerics


class Ranking(NamedTuple):
    """The ranking of a section for one parameter, and its file in tables/."""

    parameter: str
    rows: pd.DataFrame
    file: str


class Section(NamedTuple):
    """A task with its params: all its rows, and the rankings of those that were measured."""

    label: str
    rows: pd.DataFrame
    rankings: list[Ranking]


def section(of: Section) -> Iterator[Part]:
    """What the task is, then a ranking for each parameter."""
    yield f"## {escape(of.label)}"
    yield _task(of.rows)
    if not of.rankings:
        yield "Nothing was measured here."
    for parameter, ranked, file in of.rankings:
        yield f"### Gradient in {escape(tables.SYMBOLS.get(parameter, parameter))}"
        if tables.ranking_column(ranked) == "variance":
            yield (
                "The exact gradient is not known: nor are bias and mse, every verdict is "
                "inconclusive, and the ranking is by variance."
            )
        yield from _shown(ranked)
        yield f"Unrounded: [{escape(file)}](tables/{file})"


def _shown(rows: pd.DataFrame) -> Iterator[Part]:
    """One for each dtype, where its rounding leaves something to rank."""
    dtypes = list(rows["dtype"].unique())
    fine = numerics.fine(rows)
    for dtype in fine:
        if len(dtypes) > 1:
            yield f"In {escape(dtype)}:"
        part = rows[rows["dtype"] == dtype]
        yield cells.ranking(part)
        yield from cells.notes(part)
    if coarse := [d for d in dtypes if d not in fine]:
        named = " and ".join(map(escape, coarse))
        yield f"Rankings in {named}, which would be of rounding, are in the file alone."


def _task(rows: pd.DataFrame) -> str:
    said = [listed(tables.knobs(rows["task_params"].iloc[0]))]
    found = tables.measured(rows)
    if not found.empty:
        sizes = {"B": "batch", "N": "latents", "K": "categories"}
        said.append(", ".join(f"{s} = {count(found[c].iloc[0])}" for s, c in sizes.items()))
    for parameter in tables.parameters(rows):
        norms = tables.measured(rows, parameter)["gradient_norm"].dropna()
        if not norms.empty:
            symbol = tables.SYMBOLS.get(parameter, parameter)
            said.append(f"‖g‖ = {number(norms.iloc[0])} in {symbol}")
    return escape("; ".join(filter(None, said)))
