"""Curves of trainings: objectives, the gap that relaxing opens, the gradient on the way, images."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradest.analysis.curves import over_seeds
from gradest.plots import canvas, looks

_PANEL = (5.2, 3.8)
_SPREAD = 0.6  # of the curves' range that is left out above, where trainings start


@looks.style()
def objectives(points: pd.DataFrame) -> Figure | None:
    """The negative ELBO of validation data, with hard codes, against the step."""
    title = "Negative ELBO of validation data, discrete codes: mean over seeds"
    return _curves(points, [("valid", "negative_elbo", "nats")], title)


@looks.style()
def gap(points: pd.DataFrame) -> Figure | None:
    """The discrete objective less the one that is descended, on the same training data."""
    split, metric = "train", "gap"
    seen = over_seeds(points, split, metric)
    if seen.empty or not (seen["value"].abs() > (seen["high"] - seen["low"])).any():
        return None  # nothing but unbiased values: no gap to show
    title = "What relaxing hides: discrete negative ELBO less the objective descended"
    return _curves(points, [(split, metric, "nats")], title, zero=True)


@looks.style()
def gradient(points: pd.DataFrame) -> Figure | None:
    """Variance and relative bias of the gradient at the states that training went through."""
    wanted = [
        ("train", "gradient_variance", "variance tr Cov(ĝ)"),
        ("train", "gradient_bias", "relative bias"),
    ]
    title = "The gradient along the way: variance, and bias against enumeration"
    return _curves(points, wanted, title, logarithmic=True)


@looks.style()
def pictures(images: Mapping[tuple[str, str], Mapping[str, np.ndarray]]) -> Figure | None:
    """For each task and estimator: data, their reconstructions, samples of the prior."""
    if not images:
        return None
    rows = list(images.items())
    figure, grid = canvas.panels(
        len(rows),
        3,
        (3.6, 0.62),
        "Test data, reconstructions through a hard code, and samples",
        {},
        {},
    )
    for line, ((task, label), parts) in enumerate(rows):
        for ax, (name, stack) in zip(grid[line], parts.items(), strict=True):
            ax.imshow(np.hstack(list(stack)), cmap="gray_r", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            if line == 0:
                ax.set_title(name)
        grid[line][0].set_ylabel(
            looks.text(label, 22), rotation=0, ha="right", va="center", fontsize=6.5
        )
        if line == 0 or rows[line - 1][0][0] != task:
            grid[line][0].set_title(f"{looks.text(task, 50)}\n{next(iter(parts))}")
    return figure


def _curves(
    points: pd.DataFrame,
    wanted: Iterable[tuple[str, str, str]],
    title: str,
    zero: bool = False,
    logarithmic: bool = False,
) -> Figure | None:
    """A line of panels a metric, a panel a task; None without numbers."""
    lines = [(over_seeds(points, split, metric), unit) for split, metric, unit in wanted]
    lines = [(curves, unit) for curves, unit in lines if curves["value"].notna().any()]
    if not lines:
        return None
    look = looks.looks(points["estimator"].astype(str))
    tasks = list(dict.fromkeys(points["task_label"]))
    columns = min(len(tasks), 2)
    per_metric = math.ceil(len(tasks) / columns)
    names = looks.names(points, look)
    figure, grid = canvas.panels(per_metric * len(lines), columns, _PANEL, title, {}, names)
    axes = iter(grid.flat)
    parts = []
    for curves, unit in lines:
        for number in range(per_metric * columns):
            ax = next(axes)
            if number >= len(tasks):
                ax.remove()
                continue
            rows = curves[curves["task_label"].eq(tasks[number])]
            _panel(ax, rows, look, unit, logarithmic)
            ax.set_title(looks.text(str(tasks[number]), 60))
            if zero:
                ax.axhline(0, **looks.GUIDE)
            parts.append((ax, rows.assign(tag="", limit=False), "step", "value"))
    canvas.label_curves(figure, parts, look)
    return figure


def _panel(
    ax: Axes, rows: pd.DataFrame, look: Mapping[str, looks.Look], unit: str, logarithmic: bool
) -> None:
    for (estimator, _), curve in rows.groupby(["estimator", "label"], sort=False):
        curve = curve.sort_values("step")
        colour = look[str(estimator)].colour
        ax.fill_between(
            curve["step"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0
        )
        ax.plot(curve["step"], curve["value"], color=colour, linewidth=1.2)
        last = curve.iloc[-1]
        ax.plot(last["step"], last["value"], look[str(estimator)].marker, color=colour)
    if logarithmic:
        positive = rows["value"][rows["value"] > 0]
        if len(positive):
            ax.set_yscale("log")
            ax.set_ylim(positive.min() / 2, positive.max() * 2)
    elif len(rows):
        _focus(ax, rows)
    ax.set(xlabel="step", ylabel=unit)


def _focus(ax: Axes, rows: pd.DataFrame) -> None:
    """From the best end to where most curves are after their first look."""
    late = rows[rows["step"] > 0]["value"].dropna()
    if len(late) < 2:
        return
    low, high = late.min(), late.quantile(0.98)
    room = 0.06 * max(high - low, 1e-9)
    ax.set_ylim(low - room, high + room)
