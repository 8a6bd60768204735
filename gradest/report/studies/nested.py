"""The sections of a report on nested levels: many settings of one task, together."""

from collections.abc import Iterator

import pandas as pd

from gradest.markdown import escape
from gradest.quantities import count, interval, number
from gradest.report.documents.document import Part, Table
from gradest.report.frames import tables
from gradest.report.frames.nested_factors import Family
from gradest.report.studies.ranking import Ranking, Section
from gradest.report.studies.swept import rankings

_HEADERS = (
    *("estimator", "verdicts", "relative bias, %", "variance", "least variance"),
    *("largest variance", "evaluations of f"),
)
READING = (
    "Medians over the settings, with the medians of the ends of their 95 % intervals, which cover "
    "draws alone; then the least and the largest variance of any setting. Rows are in the "
    "order of their median {by}."
)


def sections(families: list[Family], file: str) -> list[Section]:
    """Every family, with the rankings of its settings one below the other, as `file` has them."""
    found = []
    for family in families:
        known = [Ranking(p, rankings(family.rows, p), file) for p in tables.parameters(family.rows)]
        found.append(Section(family.label, family.rows, known))
    return found


def section(family: Family, of: Section) -> Iterator[Part]:
    """What was brought together, and a table for each parameter, a row for each estimator."""
    values = "; ".join(
        f"{level} = {', '.join(map(tables.plain, each))}" for level, each in family.values.items()
    )
    yield f"## {escape(of.label)}"
    yield f"One section for all {family.settings} settings of the nested levels: {escape(values)}."
    if not of.rankings:
        yield "Nothing was measured here."
    for parameter, rows, file in of.rankings:
        by = tables.ranking_column(rows)
        yield f"### Gradient in {escape(tables.SYMBOLS.get(parameter, parameter))}"
        yield READING.format(by=by)
        yield table(rows)
        yield f"Unrounded, every setting by itself: [{escape(file)}](tables/{file})"


def table(rows: pd.DataFrame) -> Table:
    """A row for each estimator, by the median of what the ranking is by."""
    by = tables.ranking_column(rows)
    settings = sorted((p for _, p in rows.groupby("label")), key=lambda p: p[by].median())
    return Table(_HEADERS, [_cells(part) for part in settings], left=2)


def _cells(rows: pd.DataFrame) -> list[str]:
    """Of one estimator at all settings."""
    verdicts = rows["verdict"].value_counts()
    bias, variance = (
        [rows[f"{column}{end}"].median() for end in ("", "_low", "_high")]
        for column in ("relative_bias", "variance")
    )
    return [
        str(rows["label"].iloc[0]),
        ", ".join(f"{verdict} {n}" for verdict, n in verdicts.items()),
        interval(*(100 * end for end in bias)),
        interval(*variance),
        number(rows["variance"].min()),
        number(rows["variance"].max()),
        count(rows["evaluations"].median()),
    ]
