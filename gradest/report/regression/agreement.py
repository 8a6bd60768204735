"""Whether a run agrees with a baseline: cell by cell, from the rows of `differences`."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from gradest.report.regression import sections
from gradest.report.regression.differences import (
    BETTER,
    CHANGED,
    CLAIM,
    PROPERTY,
    SAME,
    UNJUDGED,
    WORSE,
)
from gradest.report.regression.runs import Key, Run
from gradest.support import counted, number

_DIFFERENT = (WORSE, BETTER, CHANGED)
_ABSENT = "absent"
_CLAIM = "disagrees: the claim"
_NAMED = 8  # cells in a line
_FACTS = ("gradest", "torch", "numpy", "scipy")  # versions on which numbers may depend


class Agreement(NamedTuple):
    """How many cells of a run agree with the baseline, and which do not.

    A cell agrees if none of its quantities differs significantly, at the family-wise level of a
    comparison; it is identical if all of them are equal up to rounding.
    """

    compared: int
    identical: int
    disagreeing: list[str]  # a line for each cell
    claims: tuple[int, int]  # with the same verdict, of all
    missing: list[str]  # cells of the run that the baseline lacks
    not_run: int  # cells of the baseline that the run lacks
    versions: list[str]  # a line for each that differs

    @property
    def holds(self) -> bool:
        """Whether something was compared and nothing disagrees."""
        return bool(self.compared or self.claims[1]) and not self.disagreeing

    @property
    def summary(self) -> str:
        """`81 of 81 cells agree, 36 identical up to rounding`."""
        same, claims = self.claims
        if not self.compared and not claims:
            return "no cell of this run is in it, and nothing was compared"
        cells = len([line for line in self.disagreeing if not line.startswith(_CLAIM)])
        text = (
            f"{self.compared - cells:,} of {counted(self.compared, 'cell')} agree, "
            f"{self.identical:,} identical up to rounding"
        )
        return f"{text}; {same:,} of {counted(claims, 'claim')} as before" if claims else text

    def lines(self) -> Iterator[str]:
        """Everything that a reader of the summary has to know, a line each."""
        if self.versions:
            yield f"versions that differ: {'; '.join(self.versions)}"
        if self.missing:
            rest = len(self.missing) - _NAMED
            more = f" and {rest:,} more" if rest > 0 else ""
            yield f"not in it: {', '.join(self.missing[:_NAMED])}{more}"
        if self.not_run:
            yield f"not run here: {counted(self.not_run, 'cell')} of it"
        yield from self.disagreeing


def find_agreement(base: Run, other: Run, frame: pd.DataFrame) -> Agreement:
    """The agreement of a run with the baseline, whose `differences` are the rows of `frame`."""
    claims = frame[frame["kind"].eq(CLAIM)]
    judged = frame[~frame["kind"].eq(CLAIM) & frame["judgement"].ne(UNJUDGED)]
    absent = judged["quantity"].eq("status") & judged["base_status"].eq(_ABSENT)
    missing = [f"{row.label} on {row.task_label}" for row in judged[absent].itertuples()]
    cells = [part for _, part in judged[~absent].groupby(list(Key._fields), sort=False)]
    cells = [part for part in cells if _is_compared(part)]
    different = [line for part in cells for line in _disagreement(part)]
    wrong = claims[claims["judgement"].isin((WORSE, BETTER))]
    different += [
        f"{_CLAIM} {row.estimator} on {row.task}: {row.base_status}, here {row.other_status}"
        for row in wrong.itertuples()
    ]
    return Agreement(
        len(cells),
        sum(map(_is_identical, cells)),
        different,
        (int(claims["base_status"].eq(claims["other_status"]).sum()), len(claims)),
        list(dict.fromkeys(missing)),
        len([key for key in base.cells if key not in other.cells]),
        list(_versions(base, other)),
    )


def _is_compared(part: pd.DataFrame) -> bool:
    """Whether a cell has numbers in both runs, or another status than before."""
    return bool(part["quantity"].ne("status").any() or part["judgement"].isin(_DIFFERENT).any())


def _is_identical(part: pd.DataFrame) -> bool:
    if part["kind"].eq(PROPERTY).all():
        return bool((part["base"] == part["other"]).all())
    return bool(part["judgement"].eq(SAME).all())


def _disagreement(part: pd.DataFrame) -> Iterator[str]:
    """A line about the strongest evidence, if some quantity of the cell differs."""
    different = part[part["judgement"].isin(_DIFFERENT)]
    if different.empty:
        return
    order = different["p_holm"].fillna(0.0).sort_values(kind="stable").index
    row = different.loc[order[0]].to_dict()
    more = f", and {len(different) - 1} more quantities" if len(different) > 1 else ""
    where = f"disagrees: {row['label']} on {row['task_label']}"
    if row["quantity"] == "status":
        yield f"{where}: {row['base_status']}, here {row['other_status']}: {row['reason']}"
        return
    p = row["p_holm"]
    evidence = "not by chance" if pd.isna(p) else f"p = {number(p)}"
    text = f"{sections.quantity(row)} {sections.change(row)}, {evidence}{more}"
    yield " ".join(f"{where}: {text}".split())


def _versions(base: Run, other: Run) -> Iterator[str]:
    """The versions that differ: of packages, and of the tasks and estimators that both have."""
    for key in ("versions", "implementations"):
        before, now = (run.facts.get(key) or {} for run in (base, other))
        names = _FACTS if key == "versions" else sorted(before.keys() & now.keys())
        for name in names:
            if before.get(name) != now.get(name):
                yield f"{name} {before.get(name)}, here {now.get(name)}"
