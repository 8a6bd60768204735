"""The table of what papers claim and what we measure: `make published`.

Reads the overview that `python benchmark.py --suite published` has written, and writes its claims
into docs/published.md, a table for each suite.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from gradest.errors import UsageError
from gradest.runs.suites import suite_descriptions
from gradest.support import markup, measured, stated
from tools.markers import replaced

START, END = "<!-- claims -->\n", "<!-- end -->"
_COLUMNS = ("claim", "on", "published", "measured", "verdict")
_LONGEST = 60  # characters of a list of tasks


def tables(claims: pd.DataFrame) -> Iterator[str]:
    """The tables in Markdown, one for each suite in the order of the overview."""
    descriptions = suite_descriptions()
    counts = claims["verdict"].value_counts()
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    yield f"{len(claims)} claims: {total}.\n"
    for suite, rows in claims.groupby("suite", sort=False):
        yield f"### {suite}\n"
        yield f"{descriptions.get(str(suite), '')}\n"
        yield from (f"{markup.escape(source)}\n" for source in rows["source"].dropna().unique())
        cells = [_cells(row) for row in rows.to_dict("records")]
        yield markup.table(_COLUMNS, cells, left=2) + "\n"


def _cells(row: dict) -> list[str]:
    says = row["says"] if isinstance(row["says"], str) else ""
    claim = f"{markup.escape(says)}: `{row['holds']}`" if says else f"`{row['holds']}`"
    places = str(row["on"])
    if len(places) > _LONGEST:
        places = f"{len(places.split('), '))} tasks"
    result = measured(row["measured"], row["low"], row["high"])
    published = "" if pd.isna(row["published"]) else stated(row["published"])
    return [claim, markup.escape(places), published, markup.escape(result), row["verdict"]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.published")
    parser.add_argument("--run", type=Path, default=Path("results/published"), metavar="DIR")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables to this file")
    options = parser.parse_args(arguments)
    path = options.run / "claims.csv"
    if not path.is_file():
        raise UsageError(f"{path}: no such file; run the suite published first")
    text = "\n".join(tables(pd.read_csv(path)))
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(replaced(page, START, END, f"\n{text}\n"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
