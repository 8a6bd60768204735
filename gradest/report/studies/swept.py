"""The sections of a report on sweeps of α: of many settings the worst and the usual."""

from collections.abc import Iterator

import pandas as pd

from gradest.markdown import escape
from gradest.quantities import count, interval, number
from gradest.report.documents.document import Part, Table
from gradest.report.frames import sweeps, tables
from gradest.report.studies.ranking import Ranking, Section

_HEADERS = (
    *("estimator", "verdicts", "largest bias", "at π", "median variance", "largest variance"),
    "evaluations of f",
)
READING = (
    "One table for all settings. Bias is ‖E ĝ − g‖, not relative to ‖g‖, where it is largest: at "
    "the probabilities π. Its interval ends at the largest lower and the largest upper end of the "
    "settings' 95 % intervals. Rows are in the order of their median mse."
)


def sections(frame: pd.DataFrame, file: str) -> list[Section]:
    """Every sweep, with the rankings of its settings one below the other, as `file` has them."""
    found = []
    for sweep in sweeps.found(frame):
        known = [Ranking(p, rankings(sweep.rows, p), file) for p in tables.parameters(sweep.rows)]
        found.append(Section(sweep.label, sweep.rows, known))
    return found


def section(of: Section) -> Iterator[Part]:
    """A table for each parameter, a row for each estimator."""
    norms = tables.measured(of.rows).groupby("parameter")["gradient_norm"]
    yield f"## {escape(of.label)}"
    yield READING
    for parameter, rows, file in of.rankings:
        symbol = tables.SYMBOLS.get(parameter, parameter)
        low, high = (number(end) for end in (norms.min()[parameter], norms.max()[parameter]))
        yield f"### Gradient in {escape(symbol)}"
        yield f"‖g‖ is between {low} and {high}."
        yield table(rows)
        yield f"Unrounded, every setting by itself: [{escape(file)}](tables/{file})"


def table(rows: pd.DataFrame) -> Table:
    """A row for each estimator, by its median mse."""
    settings = sorted((p for _, p in rows.groupby("label")), key=lambda p: p["mse"].median())
    return Table(_HEADERS, [_cells(part) for part in settings], left=2)


def rankings(rows: pd.DataFrame, parameter: str) -> pd.DataFrame:
    parts = [part for _, part in tables.sections(tables.measured(rows, parameter))]
    return pd.concat([tables.ranked(part) for part in parts])


def _cells(rows: pd.DataFrame) -> list[str]:
    """Of one estimator at all settings."""
    verdicts = rows["verdict"].value_counts()
    ends = [rows[f"bias_sq_{end}"].max() for end in ("low", "high")]
    worst = rows["bias_norm"].max()
    at = rows.loc[rows["bias_norm"].eq(worst), "point"]
    return [
        str(rows["label"].iloc[0]),
        ", ".join(f"{verdict} {n}" for verdict, n in verdicts.items()),
        interval(worst, *(max(end, 0.0) ** 0.5 for end in ends)),
        f"({', '.join(map(number, at.iloc[0]))})" if worst > 0 else "",
        number(rows["variance"].median()),
        number(rows["variance"].max()),
        count(rows["evaluations"].median()),
    ]
