"""Numerics: the effect of floating point on the estimates."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from gradest.measurement import LOG_ALPHA
from gradest.report.documents.document import Part, Strong, Table
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.studies.study import Pieces, Study
from gradest.statistics import UNBIASED_WITHIN
from gradest.support import counted, markup, number, plus_minus

_CELL = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates"]
_ANOMALIES = {"zero": "zero", "nonfinite": "non-finite", "overflow": "infinite"}
_MOST_TASKS = 24  # with rows of their own
_SMALL = 1e-4  # relative to a number: an error that its three digits do not show
_READING = """\
The fraction of estimates, or the probability of the outcomes, that are *zero* in every \
coordinate, *non-finite* (a NaN or an infinity) or *infinite* (an overflow); and the *error* \
relative to float64 under the same noise. ± is a standard error. Zero estimates can be a property \
of the method, such as a difference of two equal samples. **Bold** marks an estimator whose \
estimates are all zero, even if ‖g‖ is zero too, or never finite."""
_NONE = "·"
_LEGEND = f" {_NONE}: none of these."
_TOGETHER = " Where several settings share a row, each number is the largest."


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "numerics", lambda: section(run.grouped)


STUDY = Study(sections=_sections)


def anomalous(rows: pd.DataFrame) -> pd.Series:
    """Whether a row has a numerical anomaly."""
    return rows[[*_ANOMALIES, "drift"]].gt(0).any(axis=1)


def resolved(dtype: str) -> bool:
    """Whether a dtype resolves a bias at the margin of the verdicts."""
    return tables.resolution(dtype) < UNBIASED_WITHIN


def ranked_dtypes(rows: pd.DataFrame) -> list[str]:
    """The dtypes in which estimators are ranked; all of them where none resolves a bias."""
    dtypes = list(rows["dtype"].unique())
    return [d for d in dtypes if resolved(d)] or dtypes


def section(frame: pd.DataFrame) -> Iterator[Part]:
    """A table with a row for every estimator on every task and a column for every dtype.

    `frame` holds annotated rows; those of many settings that share a section share a task_label.
    """
    rows = tables.measured_rows(frame)
    # A row in log α stands for its cell where it was measured, as in the figures.
    first = rows["parameter"].ne(LOG_ALPHA).sort_values(kind="stable").index
    cells = tables.folded(rows.loc[first].drop_duplicates(_CELL).sort_index(), _MOST_TASKS)
    dtypes = list(cells["dtype"].unique())
    anomalies = anomalous(cells)
    if not anomalies.any():
        return
    yield "## Numerics"
    together = cells.groupby("task_label")["task_params"].nunique().gt(1).any()
    cells = cells.assign(name=_without_dtype(cells))
    shown = [d for d in dtypes if anomalies[cells["dtype"].eq(d)].any()]
    shown_rows = cells[anomalies].drop_duplicates(["task_label", "name"])[["task_label", "name"]]
    groups = dict(iter(cells.groupby(["task_label", "name", "dtype"])))
    norms = {task: _norm(rows) for task, rows in cells.groupby("task_label")}
    lines = [
        [
            *(str(task), norms[task], str(name)),
            *(_cell(groups.get((task, name, d))) for d in shown),
        ]
        for task, name in shown_rows.to_numpy()
    ]
    has_dots = any(_NONE in map(str, line) for line in lines)
    yield _READING + (_LEGEND if has_dots else "") + (_TOGETHER if together else "")
    yield from _coarse(dtypes)
    headers = [f"estimates in {dtype}" for dtype in shown]
    yield Table(["task", _norm_header(cells), "estimator", *headers], lines, left=3)
    every = len(cells.drop_duplicates(["task_label", "name"]))
    if every > len(lines):
        rest = counted(every - len(lines), "row")
        yield f"Left out: {rest} without zero, non-finite or inaccurate estimates."
    if clean := [d for d in dtypes if d not in shown]:
        yield f"No such estimates occurred in {markup.escape(', '.join(clean))}."


def _coarse(dtypes: Iterable[str]) -> Iterator[Part]:
    if coarse := [d for d in dtypes if not resolved(d)]:
        limits = ", ".join(f"{100 * tables.resolution(d):.0f} % in {d}" for d in coarse)
        yield (
            f"A relative bias within the rounding error of long sums, {limits}, does not count as "
            f"bias: rankings in {' and '.join(coarse)} would only rank rounding errors."
        )


def _norm_header(cells: pd.DataFrame) -> str:
    """‖g‖, with the parameter if it is the same in all cells."""
    parameters = cells["parameter"].unique()
    return (
        f"‖g‖ in {tables.SYMBOLS.get(parameters[0], parameters[0])}"
        if len(parameters) == 1
        else "‖g‖"
    )


def _without_dtype(cells: pd.DataFrame) -> list[str]:
    """The labels, without the dtype, which has a column of its own."""
    seeds = cells["seed"] if cells["seed"].nunique() > 1 else [None] * len(cells)
    return [
        tables.label(str(name), settings if seed is None else settings | {"seed": int(seed)})
        for name, settings, seed in zip(cells["estimator"], cells["settings"], seeds, strict=True)
    ]


def _norm(rows: pd.DataFrame) -> str:
    """‖g‖ of one task, at one setting or at many."""
    low, high = rows["gradient_norm"].min(), rows["gradient_norm"].max()
    return number(low) if not high > low else f"{number(low)} to {number(high)}"


def _cell(rows: pd.DataFrame | None) -> str:
    """The anomalies of one estimator in one dtype, at one setting or at many."""
    if rows is None:
        return "not run"
    anomalies = []
    for column, word in _ANOMALIES.items():
        row = rows.loc[rows[column].fillna(0).idxmax()]
        part = row[column]
        if not part > 0:
            continue
        anomalies.append(f"{word} {_share(row, column)} %" if part < 1 else f"all {word}")
    # Of estimates that are always zero or never finite the error adds nothing.
    if not rows[["zero", "nonfinite"]].ge(1).any(axis=None) and rows["drift"].gt(0).any():
        row = rows.loc[rows["drift"].idxmax()]
        error = row["drift_se"]
        negligible = error < _SMALL * row["drift"]
        anomalies.append(f"error {plus_minus(row['drift'], 0.0 if negligible else error)}")
    text = "; ".join(anomalies) or _NONE
    return Strong(text) if rows[["zero", "nonfinite"]].ge(1).any(axis=None) else text


def _share(row: pd.Series, column: str) -> str:
    """In percent, with its binomial standard error where the estimates were drawn."""
    part = row[column]
    if row["method"] == "enumerated":
        return number(100 * part)
    return plus_minus(100 * part, 100 * np.sqrt(part * (1 - part) / row["replicates"]))
