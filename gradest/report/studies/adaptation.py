"""What adapting buys: the variance of adaptive estimators as their steps go by."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gradest.report.figures import canvas, style
from gradest.report.frames import tables

_CLOSEST = 1.6  # between two ticks
_COLUMNS = ["variance", "variance_low", "variance_high"]


@style.style()
def adaptation(rows: pd.DataFrame, everyone: Iterable[str]) -> Figure | None:
    """Variance in log α against steps of adapt, one panel a task; None without rows.

    `rows` are labelled looks, and `everyone` the estimators of the run, so that figures agree.
    """
    rows = rows[np.isfinite(rows["variance"].astype(float))]
    if rows.empty:
        return None
    dtypes = rows["dtype"].unique()
    finest = min(dtypes, key=tables.resolution)  # alone, as in the other figures
    rows = rows[rows["dtype"] == finest]
    look, sections = style.looks(everyone), list(rows.groupby("task_label", sort=False))
    symbol = f"log α in {finest}" if len(dtypes) > 1 else "log α"
    title = f"What adapting buys: variance of one estimate of the gradient in {symbol}"
    columns = min(len(sections), 2)
    lines = math.ceil(len(sections) / columns)
    names = style.names(rows, look)
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
            canvas.points(ax, curve, look[str(estimator)], "step", "variance", by="step")
        _steps(ax, curves["step"])
        ax.set(xlabel="steps of adapt", ylabel="variance tr Cov(ĝ)")
        parts.append((ax, curves, "step", "variance"))
    canvas.label_curves(figure, parts, look)
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
