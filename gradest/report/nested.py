"""The sections of a report on nested levels: many settings of one task, together."""

import pandas as pd

from gradest.analysis import tables
from gradest.analysis.levels import Family
from gradest.markdown import count, escape, interval, number, table
from gradest.report.prose import Section, Table
from gradest.report.swept import rankings

_HEADERS = (
    *("estimator", "verdicts", "relative bias, %", "variance", "least variance"),
    *("largest variance", "evaluations of f"),
)
_READING = (
    "Medians over the settings, in brackets the medians of the ends of their 95 % intervals, which "
    "cover draws alone; then the least and the largest variance of any setting. Rows are in the "
    "order of their median {by}."
)


def sections(families: list[Family], file: str) -> list[Section]:
    """Every family, with the rankings of its settings one below the other, as `file` has them."""
    found = []
    for family in families:
        known = [Table(p, rankings(family.rows, p), file) for p in tables.parameters(family.rows)]
        found.append(Section(family.label, family.rows, known))
    return found


def section(family: Family, of: Section) -> str:
    """What was brought together, and a table for each parameter, a row for each estimator."""
    values = "; ".join(
        f"{level} = {', '.join(map(tables.plain, each))}" for level, each in family.values.items()
    )
    parts = [
        f"## {escape(of.label)}",
        f"One section for all {family.settings} settings of the nested levels: {escape(values)}.",
    ]
    if not of.tables:
        parts.append("Nothing was measured here.")
    for parameter, rows, file in of.tables:
        by = tables.ranking_column(rows)
        settings = sorted((p for _, p in rows.groupby("label")), key=lambda p: p[by].median())
        parts += [
            f"### Gradient in {escape(tables.SYMBOLS.get(parameter, parameter))}",
            _READING.format(by=by),
            table(_HEADERS, [_cells(part) for part in settings], left=2),
            f"Unrounded, every setting by itself: [{escape(file)}](tables/{file})",
        ]
    return "\n\n".join(parts)


def _cells(rows: pd.DataFrame) -> list[str]:
    """Of one estimator at all settings."""
    verdicts = rows["verdict"].value_counts()
    bias, variance = (
        [rows[f"{column}{end}"].median() for end in ("", "_low", "_high")]
        for column in ("relative_bias", "variance")
    )
    return [
        escape(rows["label"].iloc[0]),
        escape(", ".join(f"{verdict} {n}" for verdict, n in verdicts.items())),
        interval(*(100 * end for end in bias)),
        interval(*variance),
        number(rows["variance"].min()),
        number(rows["variance"].max()),
        count(rows["evaluations"].median()),
    ]
