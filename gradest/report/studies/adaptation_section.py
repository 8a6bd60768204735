"""The section of a report on what adapting buys."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from gradest.quantities import count, interval
from gradest.report.documents.document import Part, Table

_HEADERS = ("task", "estimator", "steps of adapt", "variance before", "after", "after / before")
_READING = (
    "The variance of one estimate in log α, before any step of `adapt` and after the last, that "
    "is in the state in which everything else was measured; brackets are 95 % intervals, at the "
    "state that these steps led to. Adapting pays where the interval of the ratio is below 1."
)
_TOGETHER = (
    " Of many settings that share a section, medians of the numbers and of the ends of their "
    "intervals."
)
_ENDS = ("", "_low", "_high")


def section(looks: pd.DataFrame) -> Iterator[Part]:
    """One row for every estimator on every task."""
    if looks.empty:
        return
    yield "## What adapting buys"
    together = looks.groupby("task_label")["task_params"].nunique().gt(1).any()
    yield _READING + (_TOGETHER if together else "")
    lines = []
    for (task, label), rows in looks.groupby(["task_label", "label"], sort=False):
        cells = [_change(part) for _, part in rows.groupby("task_params", sort=False)]
        middle = pd.DataFrame(cells).median()
        lines.append(
            [
                *(str(task), str(label), count(middle["steps"])),
                *(
                    interval(*(middle[f"{what}{end}"] for end in _ENDS))
                    for what in ("before", "after", "ratio")
                ),
            ]
        )
    yield Table(_HEADERS, lines, left=2)
    yield "Unrounded, with the steps between: `adaptation.parquet`"


def _change(rows: pd.DataFrame) -> dict[str, float]:
    """Of one cell: its first and its last look, and their ratio."""
    rows = rows.sort_values("step")
    first, last = (rows.iloc[at] for at in (0, -1))
    before, after = ([float(row[f"variance{end}"]) for end in _ENDS] for row in (first, last))
    named = {"before": before, "after": after, "ratio": ratio(after, before)}
    ends = {
        f"{what}{end}": x for what, xs in named.items() for end, x in zip(_ENDS, xs, strict=True)
    }
    return {"steps": float(last["step"]), **ends}


def ratio(after: list[float], before: list[float]) -> list[float]:
    """after / before and its ends, both given with theirs, from independent draws.

    Distances to the ends that face each other add in quadrature, of the logarithms, as where rows
    are ranked.
    """
    (a, a_low, a_high), (b, b_low, b_high) = after, before
    if not (b > 0 and a >= 0):
        return [math.nan] * 3
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.hypot(np.log(a) - np.log(a_low), np.log(b_high) - np.log(b))
        above = np.hypot(np.log(a_high) - np.log(a), np.log(b) - np.log(b_low))
        return [a / b, float(a / b * np.exp(-below)), float(a / b * np.exp(above))]
