"""The sections of a comparison of runs: rows of `differences` as tables."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradest.report.documents.document import Folded, Part, Table, Tagged
from gradest.report.frames import tables
from gradest.report.frames.ranking import POWER
from gradest.report.regression.differences import (
    BETTER,
    CELL,
    CHANGED,
    CLAIM,
    DESCENT,
    PROPERTY,
    SAME,
    TRAINING,
    UNDECIDED,
    WORSE,
    parameters,
)
from gradest.report.regression.pairs import RATIO
from gradest.statistics import Interval
from gradest.support import Parts, Quantity, interval, markup, number

JUDGEMENTS = (WORSE, BETTER, CHANGED, UNDECIDED, SAME)
NAMES = {
    "variance": "variance",
    "mean": "mean of the estimates",
    "bias": "norm of the bias",
    "gradient": "exact gradient",
    "evaluations": "evaluations of f",
    "gradient_evaluations": "backward passes",
    "negative_bound": "test −log p(x)",
    "value": "E f after the descent",
    "property": "property",
    "claim": "claim",
    "status": "status",
}
_LONGEST = 60  # rows of a table of cells without a significant difference, or of times
_DETECTABLE = "smallest detectable change"
_TAGS = {WORSE: "bad", BETTER: "good", CHANGED: "unsure"}
_CURVES = {
    TRAINING: (
        "Training runs",
        "The bound of the test data at the last step, in nats per data point, lower is better, at "
        "the best learning rate of each run. Intervals are over seeds. With one seed they are over "
        "data points and do not cover other training runs, so that nothing is tested.",
    ),
    DESCENT: (
        "Descents",
        "E f at the last step, at the best learning rate of each run. Intervals are over seeds. "
        "With one seed nothing is tested.",
    ),
}
_TIMES = (
    "Medians of the timing rounds, and their range, over the seeds compared. Times are not "
    "tested{}."
)


def judged(frame: pd.DataFrame, judgement: str) -> Iterator[Part]:
    """All rows with this judgement, except properties and claims, which have sections."""
    rows = frame[frame["judgement"].eq(judgement) & ~frame["kind"].isin((PROPERTY, CLAIM))]
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


def undecided(frame: pd.DataFrame) -> Iterator[Part]:
    """A line for each cell, in the first parameter; the others are in the file."""
    first = next(iter(parameters(frame)), "")
    shown = frame["quantity"].eq("mean") | (
        frame["quantity"].eq("variance") & frame["parameter"].eq(first)
    )
    rows = frame[shown & frame["judgement"].eq(UNDECIDED)]
    if rows.empty:
        return
    cells = [part for _, part in rows.groupby(CELL, sort=False)]
    cells.sort(key=lambda part: part["p_value"].fillna(1.0).min())
    pairs = {part.index[0]: part.set_index("quantity", drop=False) for part in cells[:_LONGEST]}

    def line(row: dict[str, Any]) -> list[str]:
        pair = pairs[row["at"]]
        return [
            *_change_and_detectable(pair, "variance"),
            *_change_and_detectable(pair, "mean"),
            _reason(pair),
        ]

    symbol = markup.escape(tables.SYMBOLS.get(first, first))
    parts: list[Part] = [
        f"Variances are with respect to {symbol}, means to log α. A dash marks significant "
        "differences and identical quantities. Each number is followed by the smallest change "
        f"that the test would detect with {100 * POWER:g} % power.",
        _table(
            frame,
            frame.loc[list(pairs)].assign(at=list(pairs)),
            ("ratio of variances", _DETECTABLE, "difference of means", _DETECTABLE, "note"),
            line,
        ),
    ]
    if len(cells) > _LONGEST:
        parts.append(f"{len(cells) - _LONGEST:,} more cells are in the file.")
    yield Folded("No significant difference", parts, level=2)


def trainings(frame: pd.DataFrame) -> Iterator[Part]:
    """The final objectives of trained models, and of the descents of tasks without networks."""
    for kind, (title, explanation) in _CURVES.items():
        rows = frame[frame["kind"].eq(kind) & frame["quantity"].ne("status")]
        if not rows.empty:
            yield f"## {title}"
            yield explanation
            yield _final_values(frame, rows)


def _final_values(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    def line(row: dict[str, Any]) -> list[str]:
        return [*_sides(row), change(row), number(row["detectable"]), _tagged(row["judgement"])]

    headers = ("baseline", "other", "difference", _DETECTABLE, "judgement")
    return _table(frame, rows, headers, line)


def properties(frame: pd.DataFrame) -> Iterator[Part]:
    """The properties that hold in one run and not in the other."""
    rows = frame[frame["kind"].eq(PROPERTY)]
    if rows.empty:
        return
    moved = rows[rows["judgement"].ne(SAME)]
    yield "## Properties"
    yield (
        f"{len(rows) - len(moved):,} rows hold in both runs or in neither; "
        f"{len(moved):,} hold in only one of them."
    )
    if not moved.empty:
        yield _table(
            frame,
            moved,
            ("baseline", "other", "baseline result", "other result", "judgement"),
            lambda row: [*_sides(row), *_statuses(row), _tagged(row["judgement"])],
            named=("property", "quantity"),
        )


def claims(frame: pd.DataFrame) -> Iterator[Part]:
    """The claims whose verdict is another one."""
    rows = frame[frame["kind"].eq(CLAIM)]
    if rows.empty:
        return
    moved = rows[rows["judgement"].ne(SAME)]
    yield "## Claims"
    yield f"Claims with the same verdict in both runs: {len(rows) - len(moved):,} of {len(rows):,}."
    if not moved.empty:
        yield _table(
            frame,
            moved,
            ("baseline", "other", "baseline verdict", "other verdict", "judgement"),
            lambda row: [*_sides(row), *_statuses(row), _tagged(row["judgement"])],
            named=("on", "claim"),
        )


def times(frame: pd.DataFrame, same_machine: bool) -> Iterator[Part]:
    """The times of both runs; `same_machine` says whether they can be compared."""
    rows = frame[frame["quantity"].eq("seconds")]
    if rows.empty:
        return
    order = np.log(rows["change"].astype(float)).abs().sort_values(ascending=False).index

    def line(row: dict[str, Any]) -> list[str]:
        return [*_sides(row, 1e6), change(row)]

    headers = ("baseline, µs per estimate", "other", "ratio")
    parts: list[Part] = [
        _TIMES.format("" if same_machine else ", because the machines differ"),
        _table(frame, rows.loc[order[:_LONGEST]], headers, line),
    ]
    if len(rows) > _LONGEST:
        more = f"{len(rows) - _LONGEST:,} more ratios"
        parts.append(f"{more}, which are closer to one, are in the file.")
    yield Folded("Time", parts, level=2)


def missing(frame: pd.DataFrame) -> Iterator[Part]:
    """Cells that were not measured in both runs, with the reasons; the worst come first."""
    rows = frame[frame["quantity"].eq("status")]
    if rows.empty:
        return
    yield "## Missing cells"
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
        return Quantity("", Parts(math.nan))
    ends = row["change"], row["low"], row["high"]
    if row["scale"] == RATIO:
        return interval(*ends).surrounded("×")
    if row["gradient_norm"] > 0:
        percent = (100 * end / row["gradient_norm"] for end in ends)
        return interval(*percent).surrounded(after=" % of ‖g‖")
    return interval(*ends)


def _table(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    headers: Sequence[str],
    line: Callable[[dict[str, Any]], list[str]],
    left: int = 0,
    named: tuple[str, str] = ("task", "estimator"),
) -> Table:
    """A line for each row, after its task and estimator; of several runs it names one."""
    run = ["run"] if frame["run"].nunique() > 1 else []
    where = [*run, "task_label", "label"]
    lines = [[*(row[c] for c in where), *line(row)] for row in rows.to_dict("records")]
    return Table((*run, *named, *headers), lines, left=len(where) + left)


def _sides(row: Mapping[str, Any], unit: float = 1.0) -> list[str]:
    if row["quantity"] == "status":
        return _statuses(row)
    return [interval(*(Interval.of(row, side) * unit).ends) for side in ("base", "other")]


def _statuses(row: Mapping[str, Any]) -> list[str]:
    return [row["base_status"], row["other_status"]]


def _p(row: Mapping[str, Any]) -> str:
    return Quantity("exact", Parts(0.0)) if math.isnan(row["p_holm"]) else number(row["p_holm"])


def _tagged(judgement: str) -> str:
    return Tagged(judgement, _TAGS[judgement]) if judgement in _TAGS else judgement


def _change_and_detectable(pair: pd.DataFrame, quantity: str) -> list[str]:
    """The change, and the smallest one that the test would detect."""
    if quantity not in pair.index:
        return ["—", "—"]
    row = pair.loc[quantity].to_dict()
    if math.isnan(row["detectable"]):
        return [change(row), "not tested"]
    return [change(row), change(row | dict.fromkeys(("change", "low", "high"), row["detectable"]))]


def _reason(pair: pd.DataFrame) -> str:
    return next((reason for reason in pair["reason"] if reason), "")
