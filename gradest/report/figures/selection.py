"""Selects the rows of a run that a figure shows."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradest.report.figures import style
from gradest.report.frames import budget, tables
from gradest.report.frames.reading import as_results
from gradest.report.frames.sweeps import outside_sweeps
from gradest.runs import ORIGIN
from gradest.statistics import Interval, columns_of

SIZES = {"replicates": "R", "latents": "N", "categories": "K"}
_CURVE = 3  # values that make a curve
_LOW = 0.05  # the part of the tasks below the bar of a median over tasks
_STEPS = 160  # of a budget's axis
_LONGEST = 1e4  # times what an axis has anyway, so that a late crossover does not squeeze all else
_NUMBERS = (
    *(
        c
        for name in ("bias_sq", "relative_bias", "variance", "mse", "seconds")
        for c in columns_of(name)
    ),
    *("gradient_norm", "work_variance", "evaluations", "gradient_evaluations"),
)
# A bias that is called unbiased, and of which no more can be left than this, relative, is zero: it
# has its place in the band about zero, whatever rounding made of it.
_ZERO = 1e-9
_RUN = "run"  # the column of runs, and the name of a run among settings
_CELL = ["estimator", "estimator_params", "seed", "dtype", "run"]


def select_rows(frame: pd.DataFrame, swept: bool = False) -> tuple[pd.DataFrame, str]:
    """The measured rows of one parameter, log α where it was measured, and its symbol.

    Of several dtypes only the finest is kept, and the symbol names it: in coarser ones bias is
    rounding, and equal numbers would cover each other.  Sweeps of α, which have figures of their
    own, are left out unless `swept`.
    Keeps of `settings` the knobs of which the estimator has several values, which a legend and a
    label at each point need; adds `tag`, these values, and `paleness`, by the verdict.

    Raises UsageError for a frame that does not say what was measured.
    """
    frame = mark_runs(frame)
    parameter = next(iter(tables.parameters(frame)), "log_alpha")
    frame = frame if swept else outside_sweeps(frame)
    rows = _drawable(tables.measured_rows(frame, parameter))
    settings = pd.Series(_varying_settings(rows), rows.index, dtype=object)
    marks = rows[ORIGIN].notna().map({True: tables.STAND_IN, False: ""})
    tags = [_tag(each) + mark for each, mark in zip(settings, marks, strict=True)]
    rows = rows.assign(settings=settings, tag=tags, paleness=style.paleness(rows["verdict"]))
    symbol = tables.SYMBOLS.get(parameter, parameter)
    if (dtypes := rows["dtype"]).nunique() > 1:
        finest = min(dtypes.unique(), key=tables.resolution)
        return rows[dtypes == finest], f"{symbol} in {finest}"
    return rows, symbol


def mark_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as results; those of several runs have their run in settings and labels, once.

    A folder has its name if no other has the same, otherwise its path.  Adds an empty `run` to
    rows without one.  Raises UsageError for a frame that does not say what was measured.
    """
    frame = as_results(frame)
    if "run" not in frame:
        return frame.assign(run="")
    runs = list(map(str, frame["run"].unique()))
    if len(runs) == 1 or all(_RUN in settings for settings in frame["settings"]):
        return frame
    names = [Path(run).name for run in runs]
    short = dict(zip(runs, names if len(set(names)) == len(runs) else runs, strict=True))
    settings = [
        {**settings, _RUN: short[str(run)]}
        for settings, run in zip(frame["settings"], frame["run"], strict=True)
    ]
    labels = [
        f"{label}, {each[_RUN]}" for label, each in zip(frame["label"], settings, strict=True)
    ]
    return frame.assign(
        label=pd.Series(labels, frame.index, dtype="str"),
        settings=pd.Series(settings, frame.index, dtype=object),
    )


def _varying_settings(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The settings of each row without those that all rows of its estimator share."""
    values = defaultdict(set)
    pairs = list(zip(rows["estimator"], rows["settings"], strict=True))
    for name, settings in pairs:
        for knob, value in settings.items():
            values[name, knob].add(tables.plain_text(value))
    return [
        {knob: value for knob, value in settings.items() if len(values[name, knob]) > 1}
        for name, settings in pairs
    ]


def _drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """NaN in place of numbers that no axis can hold: infinite, absurd or impossibly negative."""
    numbers = tables.usable_numbers(rows[list(_NUMBERS)])
    numbers = numbers.where(numbers.ge(0) | numbers.columns.str.startswith("bias_sq"))
    return rows.assign(**numbers)


def most_replicates(rows: pd.DataFrame) -> pd.DataFrame:
    """The most precise row of a cell that was measured with several numbers of replicates."""
    exact = rows["method"].eq("enumerated")
    rows = rows.assign(exact=exact).sort_values(["exact", "replicates"], kind="stable")
    return (
        rows.drop_duplicates(["task", "task_params", *_CELL], keep="last")
        .sort_index()
        .drop(columns="exact")
    )


def with_bias(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds bias in percent, and `limit`: where it may be zero its upper end stands for it."""
    zero = rows["verdict"].eq("unbiased") & rows["relative_bias_high"].le(_ZERO)
    bias = Interval.of(rows, "relative_bias").map(lambda end: (100 * end).mask(zero, 0.0))
    rows = rows.assign(**bias.columns("bias"), limit=bias.low.eq(0) & bias.high.gt(0))
    upper = {c: rows[c].mask(rows["limit"], rows["bias_high"]) for c in ("bias", "bias_low")}
    return rows.assign(**upper)


def rescaled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at their best scale, of tasks on which some biased estimators only have another.

    `bias` is what the scale leaves, in percent; `variance` that of an evaluation, relative to the
    square of the scale.  A tag says where the mean points away from the gradient.
    """
    known = rows["relative_bias_rescaled_high"].notna() & rows["variance"].notna()
    rows = rows[known & rows["best_scale"].ne(0) & rows["evaluations"].gt(0)]
    biased = rows["verdict"].eq("biased")
    parallel = rows["relative_bias_rescaled_high"].le(_ZERO)
    by_task = [biased & parallel, biased & rows["relative_bias_rescaled_low"].gt(_ZERO)]
    some, others = (x.groupby(rows["task_label"]).transform("any") for x in by_task)
    rows = rows[some & others]
    residual = Interval.of(rows, "relative_bias_rescaled") * 100
    evaluations = rows["evaluations"] / rows["best_scale"] ** 2
    variance = Interval.of(rows, "variance").map(lambda end: end * evaluations)
    away = rows["best_scale_high"].lt(0)
    return rows.assign(
        **residual.columns("bias"),
        **variance.columns("variance"),
        limit=residual.low.eq(0) & residual.high.gt(0),
        tag=rows["tag"].astype(str) + away.map({True: " (downhill)", False: ""}),
    ).assign(bias=lambda x: x["bias"].mask(x["limit"], x["bias_high"]))


def over_tasks(rows: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each estimator with its knobs: the median of its numbers over many tasks.

    The ends of an interval are those of nine tasks in ten, without one in twenty at either side.
    Variances and MSEs are relative to the median variance of all rows of a task, since tasks differ
    in their scales.  The columns `also`, which depend on the knobs, are kept.
    """
    unit = rows.groupby("task_label")["variance"].transform("median")
    scaled = ("variance", "work_variance", "mse")
    relative = {c: rows[c] / unit.where(unit > 0, 1.0) for c in scaled if c in rows}
    rows = rows.assign(**relative)
    groups = rows.groupby([*_CELL, "label", "tag", *also], sort=False, dropna=False)
    counts = [c for c in ("evaluations", "work_variance", "paleness") if c in rows]
    found = groups[counts].median()
    for column in {"variance", "bias", "mse"} & set(rows):
        found = found.assign(
            **{column: groups[column].median(), f"{column}_low": groups[column].quantile(_LOW)},
            **{f"{column}_high": groups[column].quantile(1 - _LOW)},
        )
    limits = groups["limit"].mean().gt(0.5) if "limit" in rows else False
    return found.assign(limit=limits, gradient_norm=np.nan).reset_index()


def knob_curves(rows: pd.DataFrame, knob: str) -> pd.DataFrame:
    """The rows on curves of at least three positive values of an estimator's knob.

    Adds a column for the knob, `curve`, and settings and tag without the knob.
    """
    knobs = [tables.parse_knobs(params) for params in rows["estimator_params"]]
    values = [_positive(each.pop(knob, None)) for each in knobs]
    rest = [{k: v for k, v in s.items() if k != knob} for s in rows["settings"]]
    rows = rows.assign(**{knob: pd.Series(values, rows.index, dtype=float)}).assign(
        curve=[json.dumps(each, sort_keys=True) for each in knobs],
        settings=pd.Series(rest, rows.index, dtype=object),
        tag=[_tag(each) for each in rest],
    )
    rows = rows[rows[knob].notna()]
    keys = ["task", "task_params", "estimator", "curve", "seed", "dtype", "run"]
    count = rows.groupby(keys, dropna=False)[knob].transform("nunique")
    return rows[count >= _CURVE]


class Slice(NamedTuple):
    """The rows of one task in which one size varies and the others do not."""

    title: str
    size: str
    rows: pd.DataFrame


def slices(rows: pd.DataFrame) -> Iterator[Slice]:
    """A slice for every task and every size that varies.

    The other sizes are held where this one has most values, the largest of such places.  A row
    whose replicates were not chosen, being enumerated or planned, stands for every number.

    Adds `curve`.
    """
    fixed = rows["method"].ne("enumerated") & rows["precision"].fillna("").eq("")
    sampled = rows["replicates"].where(fixed)
    rows = rows.assign(replicates=sampled, curve=rows["estimator_params"].fillna(""))
    for task, part in rows.groupby("task", sort=False):
        for size in SIZES:
            others = [s for s in SIZES if s != size and part[s].notna().any()]
            counts = part.groupby(others)[size].nunique().reset_index()
            if not counts[size].max() >= 2:
                continue
            at = counts.sort_values([size, *others]).iloc[-1][others]
            near = (part[others].eq(at) | part[others].isna()).all(axis=1)
            fixed = ", ".join(f"{SIZES[s]} = {at[s]:,g}" for s in others)
            shown = part[near & part[size].notna()]
            shown = shown.drop_duplicates(["task_params", *_CELL, size], keep="last")
            yield Slice(f"{task} at {fixed}", size, shown)


def budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """The mse of each row of a section at increasing budgets: one row per budget.

    Budgets begin at one estimate and end at ten times the last change of the best row, or at a
    hundred times the cost of the most expensive estimate.  Adds `curve`, `budget`, the ends of the
    mse, and `best`: whether no other row has less.
    """
    rows = rows.assign(passes=budget.passes(rows), curve=range(len(rows)))
    changes = budget.crossovers(rows)["budget"].replace(np.inf, np.nan)
    least, most = rows["passes"].min(), 100 * rows["passes"].max()
    last = min(10 * changes.max(), _LONGEST * most) if changes.notna().any() else most
    grid = np.geomspace(least, max(most, last), _STEPS)
    grid = pd.DataFrame({"budget": np.union1d(grid, rows["passes"])})
    drawn = rows.drop(columns=["mse", "mse_low", "mse_high"]).merge(grid, how="cross")
    drawn = drawn[drawn["budget"] >= drawn["passes"]]
    drawn = drawn.join(budget.mean_of(drawn, drawn["budget"] / drawn["passes"]))
    return drawn.assign(best=drawn["mse"].eq(drawn.groupby("budget")["mse"].transform("min")))


def _tag(settings: Mapping[str, Any]) -> str:
    return ", ".join(map(tables.plain_text, settings.values()))


def _positive(value: Any) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and value > 0 else math.nan
