"""The tables of a comparison of runs: rows of `gradest.report.regression.differences` as texts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradest.markdown import escape
from gradest.quantities import Quantity, interval, number
from gradest.report.documents.document import Folded, Part, Table, Tagged
from gradest.report.frames import tables
from gradest.report.regression.differences import (
    BETTER,
    CELL,
    CHANGED,
    PROPERTY,
    SAME,
    TRAINING,
    UNTOLD,
    WORSE,
    parameters,
)
from gradest.report.regression.pairs import RATIO

JUDGEMENTS = (WORSE, BETTER, CHANGED, UNTOLD, SAME)
NAMES = {
    "variance": "variance",
    "mean": "mean of the estimates",
    "bias": "norm of the bias",
    "gradient": "exact gradient",
    "evaluations": "evaluations of f",
    "gradient_evaluations": "backward passes",
    "negative_bound": "test −log p(x)",
    "property": "property",
    "status": "status",
}
_LONGEST = 60  # rows of a table of what is not told apart, or of times
_TAGS = {WORSE: "bad", BETTER: "good", CHANGED: "unsure"}
_TIMES = (
    "Medians of the timing rounds, and their range, over the seeds compared. They are not judged{}."
)


def judged(frame: pd.DataFrame, judgement: str) -> Iterator[Part]:
    """All that was judged so; but for properties, which have a section of their own."""
    rows = frame[frame["judgement"].eq(judgement) & frame["kind"].ne(PROPERTY)]
    if rows.empty:
        return
    yield f"## {judgement.capitalize()}"
    headers = ("quantity", "baseline", "other", "change", "p (Holm)", "note")
    yield _table(
        frame,
        rows,
        headers,
        lambda row: [quantity(row), *_sides(row), change(row), _p(row), row["reason"]],
        left=1,
    )


def untold(frame: pd.DataFrame) -> Iterator[Part]:
    """A line a cell, in the first parameter: the others are in the file."""
    first = next(iter(parameters(frame)), "")
    shown = frame["quantity"].eq("mean") | (
        frame["quantity"].eq("variance") & frame["parameter"].eq(first)
    )
    rows = frame[shown & frame["judgement"].eq(UNTOLD)]
    if rows.empty:
        return
    cells = [part for _, part in rows.groupby(CELL, sort=False)]
    cells.sort(key=lambda part: part["p_value"].fillna(1.0).min())
    pairs = {part.index[0]: part.set_index("quantity", drop=False) for part in cells[:_LONGEST]}

    def line(row: dict[str, Any]) -> list[str]:
        pair = pairs[row["at"]]
        return [*_found(pair, "variance"), *_found(pair, "mean"), _reason(pair)]

    symbol = escape(tables.SYMBOLS.get(first, first))
    parts: list[Part] = [
        f"Variances in {symbol}, means in log α; a dash is what was told apart, or is the same. "
        "Behind each is the smallest change that would have been found.",
        _table(
            frame,
            frame.loc[list(pairs)].assign(at=list(pairs)),
            ("ratio of variances", "found from", "means apart", "found from", "note"),
            line,
        ),
    ]
    if len(cells) > _LONGEST:
        parts.append(f"{len(cells) - _LONGEST:,} more cells are in the file.")
    yield Folded("Cannot be told apart", parts, level=2)


def trainings(frame: pd.DataFrame) -> Iterator[Part]:
    """What models are worth in the end."""
    rows = frame[frame["kind"].eq(TRAINING) & frame["quantity"].ne("status")]
    if rows.empty:
        return
    yield "## Trainings"
    yield (
        "The bound of the test data at the end, nats for a data point, lower is better, at the "
        "learning rate that each run found best. Intervals are over seeds; of one seed alone they "
        "are over data points and say nothing of other trainings, so that nothing is tested."
    )

    def line(row: dict[str, Any]) -> list[str]:
        return [*_sides(row), change(row), number(row["detectable"]), _tagged(row["judgement"])]

    headers = ("baseline", "other", "difference", "found from", "judgement")
    yield _table(frame, rows, headers, line)


def properties(frame: pd.DataFrame) -> Iterator[Part]:
    """Those that hold in one run and not in the other."""
    rows = frame[frame["kind"].eq(PROPERTY)]
    if rows.empty:
        return
    moved = rows[rows["judgement"].ne(SAME)]
    yield "## Properties"
    yield (
        f"{len(rows) - len(moved):,} rows hold in both runs or in neither; "
        f"{len(moved):,} hold in one of them alone."
    )
    if not moved.empty:
        yield _table(
            frame,
            moved,
            ("baseline", "other", "in the baseline", "then", "judgement"),
            lambda row: [*_sides(row), *_statuses(row), _tagged(row["judgement"])],
            named=("property", "quantity"),
        )


def times(frame: pd.DataFrame, alike: bool) -> Iterator[Part]:
    """Seconds side by side; `alike` says whether the machines are."""
    rows = frame[frame["quantity"].eq("seconds")]
    if rows.empty:
        return
    order = np.log(rows["change"].astype(float)).abs().sort_values(ascending=False).index

    def line(row: dict[str, Any]) -> list[str]:
        return [*_sides(row, 1e6), change(row)]

    headers = ("baseline, µs per estimate", "other", "ratio")
    parts: list[Part] = [
        _TIMES.format("" if alike else ": the machines differ"),
        _table(frame, rows.loc[order[:_LONGEST]], headers, line),
    ]
    if len(rows) > _LONGEST:
        parts.append(f"{len(rows) - _LONGEST:,} more, nearer to one, are in the file.")
    yield Folded("Time", parts, level=2)


def missing(frame: pd.DataFrame) -> Iterator[Part]:
    """Cells that are not measured in both runs, with the reasons, the worst first."""
    rows = frame[frame["quantity"].eq("status")]
    if rows.empty:
        return
    yield "## Not in both"
    order = rows["judgement"].map(JUDGEMENTS.index).sort_values(kind="stable").index

    def line(row: dict[str, Any]) -> list[str]:
        return [row["base_seeds"] or row["other_seeds"], *_statuses(row), row["reason"]]

    yield _table(frame, rows.loc[order], ("seeds", "baseline", "other", "reason"), line, left=4)


def quantity(row: Mapping[str, Any]) -> str:
    """`variance in log α`."""
    name = NAMES.get(row["quantity"], row["quantity"])
    inside = tables.SYMBOLS.get(row["parameter"], row["parameter"])
    return f"{name} in {inside}" if inside else name


def change(row: Mapping[str, Any]) -> str:
    """`×1.10 [1.08, 1.12]`, or a difference, in percent of ‖g‖ where that is known."""
    if math.isnan(row["change"]):
        return Quantity("", math.nan)
    ends = np.array([row["change"], row["low"], row["high"]])
    if row["scale"] == RATIO:
        return Quantity(f"×{interval(*ends)}", ends[0])
    if row["gradient_norm"] > 0:
        said = interval(*(100 * ends / row["gradient_norm"]))
        return Quantity(f"{said} % of ‖g‖", said.order)
    return interval(*ends)


def _table(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    headers: Sequence[str],
    line: Callable[[dict[str, Any]], list[str]],
    left: int = 0,
    named: tuple[str, str] = ("task", "estimator"),
) -> Table:
    """A line a row, behind what it speaks of; the run is named where there are several."""
    run = ["run"] if frame["run"].nunique() > 1 else []
    where = [*run, "task_label", "label"]
    lines = [[*(row[c] for c in where), *line(row)] for row in rows.to_dict("records")]
    return Table((*run, *named, *headers), lines, left=len(where) + left)


def _sides(row: Mapping[str, Any], unit: float = 1.0) -> list[str]:
    if row["quantity"] == "status":
        return _statuses(row)
    return [
        interval(*(unit * row[f"{side}{end}"] for end in ("", "_low", "_high")))
        for side in ("base", "other")
    ]


def _statuses(row: Mapping[str, Any]) -> list[str]:
    return [row["base_status"], row["other_status"]]


def _p(row: Mapping[str, Any]) -> str:
    return Quantity("exact", 0.0) if math.isnan(row["p_holm"]) else number(row["p_holm"])


def _tagged(judgement: str) -> str:
    return Tagged(judgement, _TAGS[judgement]) if judgement in _TAGS else judgement


def _found(pair: pd.DataFrame, quantity: str) -> list[str]:
    """The change, and how large it would have to be."""
    if quantity not in pair.index:
        return ["—", "—"]
    row = pair.loc[quantity].to_dict()
    if math.isnan(row["detectable"]):
        return [change(row), "not tested"]
    return [change(row), change(row | dict.fromkeys(("change", "low", "high"), row["detectable"]))]


def _reason(pair: pd.DataFrame) -> str:
    return next((reason for reason in pair["reason"] if reason), "")
