"""The section of a report on variance by source."""

from collections.abc import Iterator, Sequence

import pandas as pd

from gradest.markdown import escape
from gradest.quantities import Quantity, interval
from gradest.report.documents.document import Part, Table
from gradest.report.frames import tables
from gradest.report.studies.variance_components import ordered

_READING = (
    "The variance of one estimate at a random value of every nested level is the sum of these "
    "parts: that of the draws, at fixed parameters, and those of the mean gradient as one level "
    "after the other takes other values, from the innermost out. **Their 95 % intervals are over "
    "{over}**: they say what other values of {level} would give. The intervals of all other tables "
    "are within one cell, and cover draws alone. Parts are estimated without bias, so that one "
    "that is zero comes out negative about half of the time. A share is of the sum of the positive "
    "parts, as estimated, without an interval."
)


def section(rows: pd.DataFrame, nested: Sequence[str]) -> Iterator[Part]:
    """A table for each family of settings and each parameter, a row for each estimator."""
    if rows.empty:
        return
    yield "## Variance by source"
    over = rows[["over", "values"]].drop_duplicates().to_numpy()
    said = " or ".join(f"{int(values):,} values of {level}" for level, values in over)
    level = " or ".join(dict.fromkeys(str(level) for level, _ in over))
    yield _READING.format(over=escape(said), level=escape(level))
    for (label, parameter), part in rows.groupby(["task_label", "parameter"], sort=False):
        symbol = tables.SYMBOLS.get(str(parameter), str(parameter))
        yield f"### {escape(label)}: gradient in {escape(symbol)}"
        names = ordered(part, nested)
        headers = ["estimator"]
        for name in names:
            headers += [name, "share"]
        lines = [_cells(each, names) for _, each in part.groupby("label", sort=False)]
        yield Table(headers, lines, left=1)
    yield "Unrounded: `sources.parquet`"


def _cells(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    known = rows.drop_duplicates("source").set_index("source")
    total = known["variance"].clip(lower=0).sum()
    said = [str(rows["label"].iloc[0])]
    for name in names:
        if name not in known.index:
            said += ["n/a", ""]
        else:
            row = known.loc[name]
            said.append(interval(*(row[f"variance{end}"] for end in ("", "_low", "_high"))))
            said.append(_share(max(row["variance"], 0.0), total))
    return said


def _share(part: float, total: float) -> str:
    """To a whole percent, since nothing says how uncertain it is."""
    if not total > 0 or pd.isna(part):
        return "n/a"
    percent = 100 * part / total
    if 0 < percent < 0.5 or 99.5 < percent < 100:
        return Quantity("< 1 %" if percent < 50 else "> 99 %", percent)
    return Quantity(f"{percent:.0f} %", percent)
