"""The section on rows of another run, which stand in for cells that were not measured."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from gradest.report.documents.document import Part, Table
from gradest.report.documents.prose import in_a_line
from gradest.report.frames import tables
from gradest.runs import ORIGIN
from gradest.support import counted, markup

_FACTS = {"commit": "commit", "finished": "measured", "versions": "versions", "machine": "machine"}
_CELL = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype"]


def section(frame: pd.DataFrame, run: Mapping[str, Any]) -> Iterator[Part]:
    """Where such rows are from, how many cells they are, and which ones are lacking, and why."""
    facts = run.get("beside")
    if not isinstance(facts, Mapping):
        return
    rows = tables.measured_rows(frame)
    rows = rows[rows[ORIGIN].notna()].drop_duplicates(_CELL)
    name = markup.escape(facts.get("name", ""))
    yield "## Rows of another run"
    yield (
        f"{counted(len(rows), 'cell')}, marked {tables.STAND_IN} and drawn in grey, were not "
        f"measured in this run: their numbers are those of {name}, where task, knobs, versions and "
        "protocol are the same. Ranks compare them as independent measurements. Controls, claims "
        "and the number of tests concern the cells of this run alone."
    )
    lines = {title: in_a_line(facts.get(fact)) for fact, title in _FACTS.items()}
    yield "\n".join(f"- {title}: {markup.escape(text)}" for title, text in lines.items() if text)
    if lacking := facts.get("lacking"):
        yield "These cells are not ranked, because no row of it measured the same:"
        yield Table(("cell", "why"), [list(map(str, each)) for each in lacking], left=2)
    if command := facts.get("command"):
        yield "This command measures what this version can measure of them, and ranks everything:"
        yield markup.code_block(str(command))
