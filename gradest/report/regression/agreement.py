"""Whether a run agrees with a baseline: cell by cell, from the rows of `differences`."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from gradest.report.regression import sections
from gradest.report.regression.differences import (
    BETTER,
    CHANGED,
    CLAIM,
    MEASUREMENT,
    PROPERTY,
    SAME,
    UNDECIDED,
    UNJUDGED,
    WORSE,
)
from gradest.report.regression.runs import Key, Run
from gradest.runs import digest_of
from gradest.support import counted, listed, number

_DIFFERENT = (WORSE, BETTER, CHANGED)
_ABSENT = "absent"
_NAMED = 8  # cells in a line
_FACTS = ("gradest", "torch", "numpy", "scipy")  # versions on which numbers may depend


class Agreement(NamedTuple):
    """How many cells of a run agree with the baseline, and which do not.

    A cell agrees if none of its quantities differs significantly, at the family-wise level of a
    comparison; it is identical if all of them are equal up to rounding.
    """

    compared: int
    identical: int
    bitwise: int  # those of the identical ones whose moments have the same bits
    disagreeing: list[str]  # a line for each cell
    claims: int
    other_claims: list[str]  # a line for each claim with the opposite verdict
    missing: list[str]  # cells of the run that the baseline lacks
    not_run: int  # cells of the baseline that the run lacks
    versions: list[str]  # a line for each that differs

    @property
    def holds(self) -> bool:
        """Whether something was compared and nothing disagrees."""
        return bool(self.compared or self.claims) and not (self.disagreeing or self.other_claims)

    @property
    def summary(self) -> str:
        """`81 of 81 cells agree, 36 identical up to rounding, 30 of these bit by bit`."""
        if not self.compared and not self.claims:
            return "no cell of this run is in it, and nothing was compared"
        verb = "agrees" if self.compared == 1 else "agree"
        text = (
            f"{self.compared - len(self.disagreeing):,} of {counted(self.compared, 'cell')} "
            f"{verb}, {self.identical:,} identical up to rounding, {self.bitwise:,} of these bit "
            "by bit"
        )
        if not self.claims:
            return text
        agreeing = self.claims - len(self.other_claims)
        return f"{text}; {agreeing:,} of {counted(self.claims, 'claim')} agree"

    def lines(self) -> Iterator[str]:
        """Everything that a reader of the summary has to know, a line each."""
        if self.versions:
            yield f"versions that differ: {'; '.join(self.versions)}"
        if self.missing:
            yield f"not in it: {listed(self.missing, _NAMED)}"
        if self.not_run:
            yield f"not run here: {counted(self.not_run, 'cell')} of it"
        yield from self.disagreeing
        yield from self.other_claims


def find_agreement(base: Run, other: Run, frame: pd.DataFrame) -> Agreement:
    """The agreement of a run with the baseline, whose `differences` are the rows of `frame`."""
    claims = frame[frame["kind"].eq(CLAIM)]
    judged = frame[~frame["kind"].eq(CLAIM) & frame["judgement"].ne(UNJUDGED)]
    lacking, not_run = (judged[side].eq(_ABSENT) for side in ("base_status", "other_status"))
    missing = [f"{row.label} on {row.task_label}" for row in judged[lacking].itertuples()]
    both = judged[~lacking & ~not_run]
    cells = [part for _, part in both.groupby(list(Key._fields), sort=False)]
    cells = [part for part in cells if _is_compared(part)]
    identical = [part for part in cells if _is_identical(part)]
    opposite = claims[claims["judgement"].isin((WORSE, BETTER))]
    return Agreement(
        len(cells),
        len(identical),
        sum(_is_bitwise(_key(part), base, other) for part in identical),
        [line for part in cells for line in _disagreement(part)],
        len(claims),
        [
            f"disagrees: the claim {row.estimator} on {row.task}: {row.base_status}, here "
            f"{row.other_status}"
            for row in opposite.itertuples()
        ],
        list(dict.fromkeys(missing)),
        len([key for key in base.cells if key not in other.cells]),
        list(_versions(base, other)),
    )


def _key(part: pd.DataFrame) -> Key:
    return Key(*(part[name].iloc[0] for name in Key._fields))


def _is_compared(part: pd.DataFrame) -> bool:
    """Whether a cell has numbers in both runs, or another status than before."""
    return bool(part["quantity"].ne("status").any() or _differs(part).any())


def _differs(part: pd.DataFrame) -> pd.Series:
    """The rows that are significantly different, or whose numbers no test can handle."""
    broken = part["quantity"].eq("status") & part["judgement"].eq(UNDECIDED)
    return part["judgement"].isin(_DIFFERENT) | broken


def _is_bitwise(key: Key, base: Run, other: Run) -> bool:
    """Whether the moments of a measurement are the same bit by bit, at every seed of both runs."""
    if key.kind != MEASUREMENT:
        return False
    pairs = [
        (record["measurement"], other.cells[key][seed]["measurement"])
        for seed, record in base.cells[key].items()
        if seed in other.cells[key] and record["status"] == "ok"
    ]
    return bool(pairs) and all(digest_of(a) == digest_of(b) for a, b in pairs)


def _is_identical(part: pd.DataFrame) -> bool:
    if part["kind"].eq(PROPERTY).all():
        return bool((part["base"] == part["other"]).all())
    return bool(part["judgement"].eq(SAME).all())


def _disagreement(part: pd.DataFrame) -> Iterator[str]:
    """A line about the strongest evidence, if some quantity of the cell differs."""
    different = part[_differs(part)]
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
