"""The section of a report on what floating point does to the estimates."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from gradest.inference import UNBIASED_WITHIN
from gradest.markdown import escape
from gradest.quantities import number, plus_minus
from gradest.report.documents.document import Part, Strong, Table
from gradest.report.frames import tables

_WHAT = {"zero": "zero", "nonfinite": "not finite", "overflow": "infinite"}
_SMALL = 1e-4  # of a number, an error that its three digits do not show
_READING = """\
Of each cell, what is odd and nothing else: the shares of its estimates, or of the probability of \
its outcomes, that are *zero* throughout, *not finite* (a NaN or an infinity), or among those \
*infinite* (an overflow); and *off by*, how far estimates are from those in float64 under the same \
noise, relative to the size of those. ± is a standard error. **Bold** is a gradient that is always \
zero, whether ‖g‖ is or not, or never finite. A dot: nothing of all this."""
_TOGETHER = " Of many settings that share a section, the largest of each number."


def odd(rows: pd.DataFrame) -> pd.Series:
    """Whether a row has something to be said here."""
    return rows[[*_WHAT, "drift"]].gt(0).any(axis=1)


def resolved(dtype: str) -> bool:
    """Whether a bias at the margin of the verdicts is more than rounding in a dtype."""
    return tables.resolution(dtype) < UNBIASED_WITHIN


def fine(rows: pd.DataFrame) -> list[str]:
    """The dtypes whose rounding leaves something to rank; all of them where none does."""
    dtypes = list(rows["dtype"].unique())
    return [d for d in dtypes if resolved(d)] or dtypes


def section(frame: pd.DataFrame) -> Iterator[Part]:
    """A table, a row for every estimator on every task and a column for every dtype.

    `frame` holds annotated rows; those of many settings that share a section share a task_label.
    """
    cells = tables.measured(frame).drop_duplicates(
        ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates"]
    )
    dtypes = list(cells["dtype"].unique())
    found = odd(cells)
    if not found.any():
        return
    yield "## Numerics"
    together = cells.groupby("task_label")["task_params"].nunique().gt(1).any()
    yield _READING + (_TOGETHER if together else "")
    if coarse := [d for d in dtypes if not resolved(d)]:
        limits = ", ".join(f"{100 * tables.resolution(d):.0f} % in {d}" for d in coarse)
        yield (
            f"A relative bias within the rounding of many sums, {limits}, is no bias here: "
            f"rankings in {' and '.join(coarse)} would be of rounding."
        )
    cells = cells.assign(name=_without_dtype(cells))
    shown = [d for d in dtypes if found[cells["dtype"].eq(d)].any()]
    telling = cells[found].drop_duplicates(["task_label", "name"])[["task_label", "name"]]
    groups = dict(iter(cells.groupby(["task_label", "name", "dtype"])))
    norms = {task: _norm(rows) for task, rows in cells.groupby("task_label")}
    lines = [
        [
            *(str(task), norms[task], str(name)),
            *(_cell(groups.get((task, name, d))) for d in shown),
        ]
        for task, name in telling.to_numpy()
    ]
    yield Table(["task", "‖g‖", "estimator", *shown], lines, left=3)
    every = len(cells.drop_duplicates(["task_label", "name"]))
    if every > len(lines):
        yield f"Left out: {every - len(lines):,} rows that would hold dots alone."
    if rest := [d for d in dtypes if d not in shown]:
        yield f"Nothing is odd in {escape(', '.join(rest))}."


def _without_dtype(cells: pd.DataFrame) -> list[str]:
    """The labels, without what the columns say."""
    seeds = cells["seed"] if cells["seed"].nunique() > 1 else [None] * len(cells)
    return [
        tables.label(str(name), settings if seed is None else settings | {"seed": int(seed)})
        for name, settings, seed in zip(cells["estimator"], cells["settings"], seeds, strict=True)
    ]


def _norm(rows: pd.DataFrame) -> str:
    """Of one task, at one setting or at many."""
    low, high = rows["gradient_norm"].min(), rows["gradient_norm"].max()
    return number(low) if not high > low else f"{number(low)} to {number(high)}"


def _cell(rows: pd.DataFrame | None) -> str:
    """Of one estimator in one dtype, at one setting or at many."""
    if rows is None:
        return "not run"
    said = []
    for column, word in _WHAT.items():
        row = rows.loc[rows[column].fillna(0).idxmax()]
        part = row[column]
        if not part > 0:
            continue
        said.append(f"{word} {_share(row, column)} %" if part < 1 else f"all {word}")
    # How far off is told by these two words already.
    if not rows[["zero", "nonfinite"]].ge(1).any(axis=None) and rows["drift"].gt(0).any():
        row = rows.loc[rows["drift"].idxmax()]
        error = row["drift_se"]
        known = error < _SMALL * row["drift"]
        said.append(f"off by {plus_minus(row['drift'], 0.0 if known else error)}")
    text = "; ".join(said) or "·"
    return Strong(text) if rows[["zero", "nonfinite"]].ge(1).any(axis=None) else text


def _share(row: pd.Series, column: str) -> str:
    """In percent, with its binomial standard error where the estimates were drawn."""
    part = row[column]
    if row["method"] == "enumerated":
        return number(100 * part)
    return plus_minus(100 * part, 100 * np.sqrt(part * (1 - part) / row["replicates"]))
