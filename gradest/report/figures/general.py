"""Figures of measurements: one panel per task, and curves over temperatures and sizes.

Of more tasks than a page holds, one panel shows the medians.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradest.report.figures import canvas, selection, style
from gradest.report.figures.canvas import Part
from gradest.report.figures.style import Style
from gradest.report.frames import tables
from gradest.report.frames.reading import as_results
from gradest.runs import ORIGIN
from gradest.statistics import UNBIASED_WITHIN, Interval
from gradest.support import number

_BIAS, _VARIANCE = "relative bias, % of ‖g‖", "variance tr Cov(ĝ)"
_RESCALED_VARIANCE = "variance × evaluations, at the best step size"
_CROWDED = 20  # points in a panel that need a larger one
_APART = 20  # points of a curve between places for its label


@style.theme()
def bias_against_variance(frame: pd.DataFrame) -> Figure | None:
    """Relative bias against variance, one panel per task."""
    rows, symbol = selection.select_rows(frame)
    rows = selection.with_bias(rows[rows["relative_bias_high"].notna() & rows["variance"].notna()])
    title = f"Bias and variance of one estimate of the gradient in {symbol}: lower left is better"
    keys = style.verdict_keys() | style.bias_keys()

    def draw(ax: Axes, part: pd.DataFrame, styles: Mapping[str, Style]) -> Part:
        _logarithmic(ax, "x", part, "variance")
        _bias_axis(ax, part)
        _scatter(ax, part, styles, "variance", "bias")
        ax.set(xlabel=_VARIANCE, ylabel=_BIAS)
        return ax, part, "variance", "bias"

    return _one_a_task(frame, rows, title, keys, draw, _label_points)


@style.theme()
def bias_of_direction(frame: pd.DataFrame) -> Figure | None:
    """The bias that no step size removes against the variance at equal work, one panel per task.

    None unless some biased estimators of a task only have another step size, and others do not:
    elsewhere the figure would repeat that of the bias.
    """
    rows, symbol = selection.select_rows(frame)
    rows = selection.rescaled(rows)
    title = f"Bias of the direction of the gradient in {symbol}: lower left is better"
    keys = style.verdict_keys() | style.limit_keys()

    def draw(ax: Axes, part: pd.DataFrame, styles: Mapping[str, Style]) -> Part:
        _logarithmic(ax, "x", part, "variance")
        canvas.logarithmic(ax, "y", part["bias"], [part["bias_low"], part["bias_high"]], plain=True)
        _scatter(ax, part, styles, "variance", "bias")
        ax.set(xlabel=_RESCALED_VARIANCE, ylabel="bias left by the best step size, % of ‖g‖")
        return ax, part, "variance", "bias"

    return _one_a_task(frame, rows, title, keys, draw, _label_points)


@style.theme()
def variance_against_evaluations(frame: pd.DataFrame) -> Figure | None:
    """Variance against evaluations of f, a panel per task, with lines of equal product."""
    rows, symbol = selection.select_rows(frame)
    rows = rows[rows["evaluations"].gt(0) & rows["variance"].notna()]
    title = f"Variance and evaluations of one estimate in {symbol}: lower left is better"
    keys = style.verdict_keys() | style.work_keys()

    def draw(ax: Axes, part: pd.DataFrame, styles: Mapping[str, Style]) -> Part:
        _size_axis(ax, part, "evaluations")
        _logarithmic(ax, "y", part, "variance")
        _equal_work(ax, part["work_variance"])
        _scatter(ax, part, styles, "evaluations", "variance")
        ax.set(xlabel="evaluations of f per estimate", ylabel=_VARIANCE)
        return ax, part, "evaluations", "variance"

    return _one_a_task(frame, rows, title, keys, draw, _label_points)


@style.theme()
def mse_against_budget(frame: pd.DataFrame) -> Figure | None:
    """The MSE of the mean of m estimates against its budget, one panel per task.

    None for more tasks than have panels: budgets at which curves cross have no median.
    """
    rows, symbol = selection.select_rows(frame)
    rows = rows[rows["evaluations"].gt(0) & rows["mse"].notna()]
    if rows["task_label"].nunique() > tables.FEW_TASKS:
        return None
    title = f"MSE at a fixed budget: mean of m estimates of the gradient in {symbol}"
    keys = style.verdict_keys() | style.best_keys()

    def draw(ax: Axes, part: pd.DataFrame, styles: Mapping[str, Style]) -> Part:
        drawn = selection.budgets(part)
        canvas.logarithmic(ax, "x", drawn["budget"])
        canvas.logarithmic(ax, "y", drawn["mse"])
        low, high = ax.get_xlim()
        ax.set_xlim(low, high * (high / low) ** 0.15)  # room for names behind the ends
        ax.plot(drawn.groupby("budget")["mse"].min(), **style.BEST)
        ends = []
        for _, curve in drawn.groupby("curve"):
            canvas.banded(ax, curve, styles[str(curve["estimator"].iloc[0])], "budget", "mse")
            ends.append(curve.iloc[[0, *range(-1, -len(curve), -_APART)]])
        ax.set(xlabel="budget: passes through f, forward and backward", ylabel="MSE of the mean")
        return ax, pd.concat(ends).sort_values("best", ascending=False), "budget", "mse"

    return _one_a_task(frame, rows, title, keys, draw, canvas.label_curves)


@style.theme()
def temperature_tradeoff(frame: pd.DataFrame) -> Figure | None:
    """Bias, variance and MSE against temperature, one row of panels per task.

    Shows every estimator that was measured at three temperatures or more.
    """
    rows, symbol = selection.select_rows(frame)
    rows = selection.with_bias(
        selection.knob_curves(selection.most_replicates(rows), "temperature")
    )
    if rows.empty:
        return None
    sections = list(tables.sections(rows))
    if many := len(sections) > tables.FEW_TASKS:
        medians = selection.over_tasks(rows, ["curve", "temperature"])
        sections = [(f"{len(sections):,} tasks: medians, and bars over nine in ten", medians)]
    styles, keys = _styles(frame), style.verdict_keys() | style.bias_keys()
    title = f"Effect of the temperature on one estimate of the gradient in {symbol}"
    columns = {"bias": _BIAS, "variance": _VARIANCE, "mse": "MSE of one estimate"}
    names = style.legend_entries(rows, styles)
    figure, grid = canvas.panels(len(sections), 3, (3.6, 2.7), title, keys, names)
    parts = []
    titles = style.titles(name for name, _ in sections)
    for axes, name, (_, part) in zip(grid, titles, sections, strict=True):
        axes[0].set_title(name)
        for ax, (column, what) in zip(axes, columns.items(), strict=True):
            shown = part[part[column].notna()]
            _bias_axis(ax, shown) if column == "bias" else _logarithmic(ax, "y", shown, column)
            _size_axis(ax, part, "temperature", names=True)
            _curves(ax, shown, styles, "temperature", column)
            ax.set(
                xlabel="temperature",
                ylabel=f"{what}, relative" if many and ax is not axes[0] else what,
            )
            parts.append((ax, shown, "temperature", column))
    canvas.label_curves(figure, parts, styles)
    return figure


@style.theme()
def cost_growth(frame: pd.DataFrame) -> Figure | None:
    """Time and evaluations per estimate against each size that varies, a row of panels each."""
    rows, _ = selection.select_rows(frame)
    rows = rows[rows["seconds"].gt(0) & rows["evaluations"].gt(0)]
    rows = rows.assign(**(Interval.of(rows, "seconds") * 1e6).columns("µs"))
    slices = list(selection.slices(rows.assign(paleness=style.FILLED)))
    if not slices:
        return None
    styles = _styles(frame)
    names = style.legend_entries(pd.concat([each.rows for each in slices]), styles)
    columns = {"µs": "µs per estimate", "evaluations": "evaluations of f per estimate"}
    title = "Time and evaluations of one estimate against the size of the problem"
    figure, grid = canvas.panels(len(slices), 2, (4.8, 3.0), title, {}, names)
    parts = []
    titles = style.titles((each.title for each in slices), 60)
    for axes, name, (_, size, part) in zip(grid, titles, slices, strict=True):
        axes[0].set_title(name)
        for ax, (column, what) in zip(axes, columns.items(), strict=True):
            _logarithmic(ax, "y", part, column, plain=True)
            _size_axis(ax, part, size, names=True)
            _curves(ax, part, styles, size, column)
            ax.set(xlabel=f"{size} {selection.SIZES[size]}", ylabel=what)
            parts.append((ax, part, size, column))
    canvas.label_curves(figure, parts, styles)
    return figure


def _styles(frame: pd.DataFrame) -> dict[str, Style]:
    """A style for every estimator in the run, so that all its figures agree.

    Estimators that only have rows of another run are grey.
    """
    frame = as_results(frame)
    styles = style.assign_styles(frame["estimator"].astype(str))
    measured = set(frame.loc[frame[ORIGIN].isna(), "estimator"].astype(str))
    return {name: own if name in measured else own.faded() for name, own in styles.items()}


def _one_a_task(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    title: str,
    keys: Mapping[str, Line2D],
    draw: Callable[[Axes, pd.DataFrame, Mapping[str, Style]], Part],
    label: Callable[[Figure, Sequence[Part], Mapping[str, Style]], None],
) -> Figure | None:
    """A panel for every task, drawn one by one and then labelled; None without rows.

    Of many tasks one panel has the medians.
    """
    if rows.empty:
        return None
    styles, keys = _styles(frame), {**keys, **style.stand_in_keys(rows)}
    names, sections = zip(*tables.sections(selection.most_replicates(rows)), strict=True)
    if many := len(sections) > tables.FEW_TASKS:
        titles = [f"{len(sections):,} tasks: medians, and bars over nine tasks in ten"]
        sections = (selection.over_tasks(pd.concat(sections)),)
    else:
        titles = list(map(_with_norm, style.titles(names), sections))
    crowded = max(map(len, sections)) > _CROWDED
    columns = min(len(sections), 2 if len(sections) <= 4 or crowded else 3)
    size = (7.6, 4.9) if many else (6.6, 4.9) if crowded else (4.8, 3.6)
    columns = canvas.across(columns, size[0])
    lines = math.ceil(len(sections) / columns)
    entries = style.legend_entries(rows, styles)
    figure, grid = canvas.panels(lines, columns, size, title, keys, entries)
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    parts = []
    for ax, name, part in zip(grid.flat, titles, sections, strict=False):
        ax.set_title(name)
        parts.append(draw(ax, part, styles))
        if many:
            _say_relative(*parts[-1])
    label(figure, parts, styles)
    return figure


def _with_norm(name: str, rows: pd.DataFrame) -> str:
    norm = rows["gradient_norm"].iloc[0]
    return name if np.isnan(norm) else f"{name}   ‖g‖ = {number(norm)}"


def _say_relative(ax: Axes, _rows: pd.DataFrame, x: str, y: str) -> None:
    """Add to the label of a variance over several tasks what it is relative to."""
    for axis, column in ((ax.xaxis, x), (ax.yaxis, y)):
        if column == "variance":
            axis.set_label_text(f"{axis.get_label_text()}, relative to the median of its task")


def _logarithmic(ax: Axes, name: str, rows: pd.DataFrame, column: str, plain: bool = False) -> None:
    ends = [rows[f"{column}{end}"] for end in ("_low", "_high") if f"{column}{end}" in rows]
    canvas.logarithmic(ax, name, rows[column], ends, plain)


def _bias_axis(ax: Axes, rows: pd.DataFrame) -> None:
    margin = 100 * UNBIASED_WITHIN
    ends = [rows["bias_low"], rows["bias_high"], pd.Series([margin])]
    canvas.logarithmic(ax, "y", rows["bias"], ends, plain=True)
    ax.axhline(margin, linestyle="--", zorder=1, **style.GUIDE)


def _size_axis(ax: Axes, rows: pd.DataFrame, size: str, names: bool = False) -> None:
    """An x axis with ticks at the values; `names` leaves room for names behind the largest."""
    canvas.logarithmic(ax, "x", rows[size], plain=True)
    canvas.ticks_at(ax, rows[size])
    low, high = ax.get_xlim()
    ax.set_xlim(low, high * (high / low) ** 0.2 if names else high)


def _equal_work(ax: Axes, work: pd.Series) -> None:
    """Lines of equal variance × evaluations, at most six, at powers of ten."""
    positive = work[work > 0]
    if positive.empty:
        return
    first, last = (math.floor(math.log10(x)) for x in (positive.min(), positive.max()))
    lowest = getattr(ax.yaxis.get_transform(), "linthresh", 0.0)
    x = np.geomspace(*ax.get_xlim(), 200)
    for power in range(first, last + 2, math.ceil((last + 2 - first) / 6)):
        y = np.where(10.0**power / x < lowest, np.nan, 10.0**power / x)
        ax.plot(x, y, linestyle=":", scalex=False, scaley=False, **style.GUIDE)


def _scatter(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style], x: str, y: str) -> None:
    """One point per row; those of an estimator that differ in one numeric knob are joined."""
    for (name, *_), part in rows.groupby(["estimator", "seed", "dtype", "run"], dropna=False):
        knob = pd.to_numeric(part["tag"].str.rstrip(tables.STAND_IN), errors="coerce")
        path = knob.notna().all() and knob.is_unique and part[x].nunique() > 1
        by = "knob" if path else None
        canvas.points(ax, part.assign(knob=knob), styles[str(name)], x, y, by, fill="paleness")


def _curves(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style], x: str, y: str) -> None:
    keys = ["estimator", "curve", "seed", "dtype", "run"]
    for (name, *_), part in rows.groupby(keys, dropna=False):
        canvas.points(ax, part, styles[str(name)], x, y, by=x, fill="paleness")


def _label_points(figure: Figure, parts: Sequence[Part], styles: Mapping[str, Style]) -> None:
    """Every estimator's name at one of its points, then its knobs' values at the others."""
    canvas.lay_out(figure)
    for ax, rows, x, y in parts:
        labels = canvas.Labels(ax, rows, x, y)
        unnamed, groups = set(rows["estimator"]), dict(iter(rows.groupby(["estimator", "tag"])))
        for (name, tag), part in list(groups.items()):
            if name in unnamed and labels.write(f"{name} {tag}".strip(), part, styles[name]):
                unnamed.remove(name)
                del groups[name, tag]
        for (name, tag), part in groups.items():
            if name not in unnamed and tag:
                labels.write(tag, part, styles[name])
