"""Curves against the step: a panel for each task and metric, and a line in a band each."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradest.report.figures import canvas, style
from gradest.report.figures.canvas import Part as Panel
from gradest.report.figures.style import Style
from gradest.report.frames import tables

_PANEL = (5.2, 3.8)
_NAMES = 0.18  # of an axis of steps that is left for names behind the last

Drawer = Callable[[Axes, pd.DataFrame, Mapping[str, Style]], Panel]


def panels(
    points: pd.DataFrame,
    drawers: Sequence[tuple[pd.DataFrame, Drawer]],
    title: str,
    keys: Mapping[str, Artist] | None = None,
) -> Figure | None:
    """A panel for each set of curves and every task that has any; None without numbers."""
    drawn = [
        (draw, task, rows)
        for curves, draw in drawers
        for task, rows in curves[np.isfinite(curves["value"])].groupby("task_label", sort=False)
    ]
    if not drawn:
        return None
    styles = style.assign_styles(points["estimator"].astype(str))
    columns = min(len(drawn), 2)
    height = math.ceil(len(drawn) / columns)
    names = style.legend_entries(points[points["status"].eq("ok")], styles)
    figure, grid = canvas.panels(height, columns, _PANEL, title, keys or {}, names)
    for ax in grid.flat[len(drawn) :]:
        ax.remove()
    tasks = list(dict.fromkeys(str(task) for _, task, _ in drawn))
    titles = dict(zip(tasks, style.titles(tasks, 60), strict=True))
    tags = {
        label: ", ".join(map(tables.plain_text, settings.values()))
        for label, settings in zip(points["label"], points["settings"], strict=True)
    }
    parts = []
    for ax, (draw, task, rows) in zip(grid.flat, drawn, strict=False):
        ax.set_title(titles[str(task)])
        part = draw(ax, rows.assign(tag=rows["label"].map(tags)), styles)
        first, last = part[1]["step"].min(), part[1]["step"].max()
        ax.set_xlim(first - 0.03 * last - 0.5, (1 + _NAMES) * last + 0.5)
        parts.append(part)
    canvas.label_curves(figure, parts, styles)
    return figure


def lines(
    ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style], from_start: bool = False
) -> Panel:
    """A line in a band for every curve, with a marker where it ends.

    The start, which may be far off, has its place on the axis only if asked for.
    """
    for (estimator, _), curve in rows.groupby(["estimator", "label"], sort=False):
        curve = curve.sort_values("step")
        colour = styles[str(estimator)].colour
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        ax.fill_between(curve["step"], curve["low"], curve["high"], **band)
        ax.plot(curve["step"], curve["value"], color=colour, linewidth=1.2)
        last = curve.iloc[-1]
        ax.plot(last["step"], last["value"], styles[str(estimator)].marker, color=colour)
    later = rows if from_start else rows[rows["step"] > 0]
    if len(later):
        low, high = later["value"].min(), later["value"].max()
        room = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)
    return ax, rows, "step", "value"
