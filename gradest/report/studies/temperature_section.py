"""The section of a report on the temperatures that models were trained with."""

from collections.abc import Iterator

import pandas as pd

from gradest.quantities import interval, number
from gradest.report.documents.document import Part, Table
from gradest.report.studies import temperatures

_HEADERS = ("task", "estimator", "best λ", "tied with", "test −log p(x), m codes", "1/(n − 1)")
_READING = (
    "Of each line of trainings that differ in the temperature λ alone, the λ with the lowest bound "
    "of the test data with hard codes, and which others no test tells apart from it, at 5 % for "
    "all pairs of the line (Holm). The lines of a task are in the order of that bound. Brackets "
    "are 95 % intervals, as above. A Concrete density of n categories has no mode inside the "
    "simplex up to λ = 1/(n − 1)."
)


def section(points: pd.DataFrame) -> Iterator[Part]:
    """A row for each task and each line of temperatures; nothing where none was varied."""
    found = list(temperatures.best(temperatures.swept(points)))
    if not found:
        return
    yield "### Choosing the temperature"
    yield _READING
    lines = [
        [
            *(each.task_label, each.curve, number(each.temperature)),
            ", ".join(map(number, each.tied)) or "none",
            interval(each.value, each.low, each.high),
            number(each.limit),
        ]
        for each in found
    ]
    yield Table(_HEADERS, lines, left=2)
