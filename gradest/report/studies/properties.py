"""The section of a report on the properties of distributions."""

import json
from collections.abc import Iterator

import pandas as pd

from gradest.markdown import escape
from gradest.properties import LEVEL, PROPERTIES, ROWS
from gradest.quantities import interval
from gradest.report.documents.document import Part, Strong, Table

_HEADERS = ("settings", "quantity", "value", "expected", "holds", "how")
_READING = (
    "Brackets are simultaneous intervals: if every property is true, all of them together miss in "
    "{missed:g} % of seeds. Those of quadrature and of automatic differentiation are not "
    "random: they bound its error. Where an interval agrees with what is expected, but is too wide "
    "to have shown a relevant error, nothing is shown."
)
_SIZES = ("draws",)  # knobs that say how, not what


def section(rows: pd.DataFrame) -> Iterator[Part]:
    """A table for every property; the rows are records of `Row`, with the settings as JSON text."""
    if rows.empty:
        return
    yield "## Properties"
    said, of = verdict(rows)
    yield f"**{said}**: {escape(of)}."
    yield _READING.format(missed=100 * LEVEL * max(1.0, len(rows) / ROWS))
    for name, part in rows.groupby("property", sort=False):
        yield f"### {escape(name)}"
        if name in PROPERTIES:
            yield escape(_claim(PROPERTIES[str(name)]))
        yield Table(_HEADERS, [_cells(row) for row in part.itertuples(index=False)], left=2)
    yield "Unrounded: `properties.parquet`"


def verdict(rows: pd.DataFrame) -> tuple[str, str]:
    """Whether every property holds, and of how many, or else of which; plain text."""
    failed = rows[~rows["holds"].astype(bool)]
    kinds = rows["property"].nunique()
    if failed.empty:
        return "Every property holds", f"{len(rows):,} rows of {kinds} properties"
    counts = failed["property"].value_counts(sort=False)
    named = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"{len(failed):,} of {len(rows):,} rows do not hold", named


def _claim(found: type) -> str:
    return (found.__doc__ or "").split("\n\n")[0]


def _cells(row: tuple) -> list[str]:
    knobs = json.loads(row.settings)
    said = ", ".join(f"{knob} {value}" for knob, value in knobs.items() if knob not in _SIZES)
    return [
        said,
        row.quantity,
        interval(row.value, row.low, row.high),
        f"{row.relation} {row.expected:.6g}",
        "yes" if row.holds else Strong("no") if _contradicted(row) else "not shown",
        row.how,
    ]


def _contradicted(row: tuple) -> bool:
    """Whether the interval excludes what is expected, rather than being too wide to tell."""
    above, below = row.low > row.expected, row.high < row.expected
    return {"=": above or below, "≥": below, "≤": above, "<": row.low >= row.expected}[row.relation]
