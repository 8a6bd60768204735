"""The effect of adaptation: the variance of adaptive estimators over their steps."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gradest.report.documents.document import Part, Table
from gradest.report.figures import canvas, style
from gradest.report.frames import tables
from gradest.report.frames.loading import LoadedRun
from gradest.report.studies.study import ZEROS, Illustration, Pieces, Study
from gradest.statistics import Interval
from gradest.support import count, interval

_MOST_TASKS = 24  # with rows of their own
_CLOSEST = 1.6  # between two ticks
_COLUMNS = ["variance", "variance_low", "variance_high"]
_HEADERS = ("task", "estimator", "adaptation steps", "variance before", "after", "after / before")
_READING = (
    "Variance of one estimate with respect to log α, before the first step of `adapt` and after "
    "the last one, which is the state used for all other measurements. Brackets are 95 % "
    "intervals at the state that these steps reached. Adaptation reduces the variance where the "
    "interval of the ratio is below 1."
)
_TOGETHER = (
    " Where several settings share a row, the numbers and the ends of their intervals are medians."
)


def _draw(run: LoadedRun) -> Figure | None:
    return adaptation(run.adaptation, run.estimators)


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "adaptation", lambda: section(run.adaptation)


STUDY = Study(
    illustrations=(
        Illustration(
            "adaptation",
            _draw,
            "Variance of one estimate with respect to log α against adaptation steps, one panel "
            "per task",
            "The leftmost point of a line is the variance before the first step. Bars are 95 % "
            "intervals, each from independent draws at the state that these steps reached. Where "
            "several settings share a panel, the numbers and the ends of their intervals are "
            f"medians. {ZEROS.capitalize()}.",
        ),
    ),
    sections=_sections,
)


@style.theme()
def adaptation(rows: pd.DataFrame, estimators: Iterable[str]) -> Figure | None:
    """Variance in log α against adaptation steps, one panel per task; None without rows.

    `rows` are labelled, and `estimators` are all those of the run, so that figures agree.
    """
    rows = rows[np.isfinite(rows["variance"].astype(float))]
    if rows.empty:
        return None
    rows = tables.folded(rows, tables.FEW_TASKS)
    dtypes = rows["dtype"].unique()
    finest = min(dtypes, key=tables.resolution)  # alone, as in the other figures
    rows = rows[rows["dtype"] == finest]
    styles, sections = style.assign_styles(estimators), list(rows.groupby("task_label", sort=False))
    symbol = f"log α in {finest}" if len(dtypes) > 1 else "log α"
    title = f"Effect of adaptation: variance of one estimate of the gradient in {symbol}"
    columns = min(len(sections), 2)
    lines = math.ceil(len(sections) / columns)
    names = style.legend_entries(rows, styles)
    figure, grid = canvas.panels(lines, columns, (5.2, 3.6), title, {}, names)
    parts = []
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    titles = style.titles((name for name, _ in sections), 60)
    for ax, name, (_, section) in zip(grid.flat, titles, sections, strict=False):
        ax.set_title(name)
        cells = ["estimator", "label", "tag", "step"]
        curves = section.groupby(cells, sort=False)[_COLUMNS].median().reset_index()
        canvas.logarithmic(ax, "y", *_points_and_ends(curves), plain=True)
        for (estimator, _), curve in curves.groupby(["estimator", "label"], sort=False):
            canvas.points(ax, curve, styles[str(estimator)], "step", "variance", by="step")
        _steps(ax, curves["step"])
        ax.set(xlabel="adaptation steps", ylabel="variance tr Cov(ĝ)")
        parts.append((ax, curves, "step", "variance"))
    canvas.label_curves(figure, parts, styles)
    return figure


def _points_and_ends(curves: pd.DataFrame) -> tuple[pd.Series, list[pd.Series]]:
    first, *ends = (curves[column] for column in _COLUMNS)
    return first, ends


def _steps(ax: Axes, steps: pd.Series) -> None:
    """A logarithmic axis that begins at zero, which has a place of its own, with room for names."""
    last = max(float(steps.max()), 1.0)
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(-0.25, 1.6 * last**1.15)
    ticks: list[float] = []
    for step in sorted(set(steps), reverse=True):
        if not ticks or step * _CLOSEST <= ticks[-1]:
            ticks.append(float(step))
    ax.xaxis.set_major_locator(FixedLocator(ticks[::-1]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def section(rows: pd.DataFrame) -> Iterator[Part]:
    """A table with a row for every estimator on every task."""
    if rows.empty:
        return
    yield "## Effect of adaptation"
    rows = tables.folded(rows, _MOST_TASKS)
    together = rows.groupby("task_label")["task_params"].nunique().gt(1).any()
    yield _READING + (_TOGETHER if together else "")
    lines = []
    for (task, label), part in rows.groupby(["task_label", "label"], sort=False):
        changes = [_change(cell) for _, cell in part.groupby("task_params", sort=False)]
        median = pd.DataFrame(changes).median()
        numbers = (interval(*Interval.of(median, n).ends) for n in ("before", "after", "ratio"))
        lines.append([str(task), str(label), count(median["steps"]), *numbers])
    yield Table(_HEADERS, lines, left=2)
    yield "Unrounded, with all steps: `adaptation.parquet`"


def _change(rows: pd.DataFrame) -> dict[str, float]:
    """The first and the last variance of one cell, and their ratio."""
    rows = rows.sort_values("step")
    before, after = (Interval.of(rows.iloc[n], "variance") for n in (0, -1))
    return {
        "steps": float(rows["step"].iloc[-1]),
        **before.columns("before"),
        **after.columns("after"),
        **(after / before).columns("ratio"),
    }
