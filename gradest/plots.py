"""Figures of a run: functions from its rows to a matplotlib figure.

Each returns None where the rows do not hold what it shows.  All show the gradient with respect
to log α where that was measured.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from gradest import canvas, tables
from gradest.canvas import Style
from gradest.inference import UNBIASED_WITHIN
from gradest.markdown import number

_SIZES = {"replicates": "replicates R", "latents": "latents N", "categories": "categories K"}
_SHORT = {"replicates": "R", "latents": "N", "categories": "K"}
_GREY = {"color": "0.6", "linewidth": 0.8, "zorder": 1}
_FEWEST = 3  # values of a knob or a size that make a curve


def bias_against_variance(frame: pd.DataFrame) -> Figure | None:
    """Relative bias against variance, one panel a task."""
    rows, looks, symbol = _selected(frame)
    rows = _with_bias(rows[rows["relative_bias_high"].notna() & rows["variance"].notna()])
    if rows.empty:
        return None
    key = {**_margin_key(), **canvas.verdict_key(), **canvas.limit_key()}
    title = f"Bias and variance of one estimate of the gradient in {symbol} (lower left is better)"
    figure, parts = _one_a_task(rows, looks, key, title)
    for ax, part in parts:
        canvas.logarithmic(ax, "x", _all(part, "variance"))
        _bias_axis(ax, part)
        _scatter(ax, part, looks, "variance", "bias")
        ax.set(xlabel="variance tr Cov(ĝ)", ylabel="relative bias, % of ‖g‖")
    _label(parts, looks, "variance", "bias")
    return figure


def variance_against_evaluations(frame: pd.DataFrame) -> Figure | None:
    """Variance against evaluations of f, one panel a task, with lines of equal work."""
    rows, looks, symbol = _selected(frame)
    rows = rows[rows["evaluations"].gt(0) & rows["variance"].notna()]
    if rows.empty:
        return None
    key = {
        "variance × evaluations is the same": Line2D([], [], linestyle=":", **_GREY),
        **canvas.verdict_key(),
    }
    title = f"Variance and work of one estimate of the gradient in {symbol} (lower left is better)"
    figure, parts = _one_a_task(rows, looks, key, title)
    for ax, part in parts:
        canvas.logarithmic(ax, "x", part["evaluations"], plain=True)
        canvas.logarithmic(ax, "y", _all(part, "variance"))
        for work in _decades(part["work_variance"]):
            x = np.array(ax.get_xlim())
            ax.plot(x, work / x, linestyle=":", scalex=False, scaley=False, **_GREY)
        _scatter(ax, part, looks, "evaluations", "variance")
        ax.set(xlabel="evaluations of f per estimate", ylabel="variance tr Cov(ĝ)")
    _label(parts, looks, "evaluations", "variance")
    return figure


def temperature_tradeoff(frame: pd.DataFrame) -> Figure | None:
    """Bias, variance and mse against temperature, one row a task.

    Of every estimator that was measured at three temperatures or more.
    """
    rows, looks, symbol = _selected(frame)
    knobs = [tables.knobs(text) for text in rows["estimator_params"]]
    rows = rows.assign(
        temperature=[_positive(each.get("temperature")) for each in knobs],
        rest=[tables.label("", {**each, "temperature": None}) for each in knobs],
    )
    keys = ["task", "task_params", "estimator", "rest", "seed", "dtype"]
    rows = _curves(rows[rows["temperature"].notna()], keys, "temperature")
    if rows.empty:
        return None
    rows = _with_bias(rows)
    sections = list(tables.sections(rows))
    key = {**_margin_key(), **canvas.verdict_key(), **canvas.limit_key()}
    title = f"What temperature trades, for the gradient in {symbol}"
    figure, grid = canvas.panels(
        len(sections), 3, (3.4, 2.6), {**_legend(rows, looks, named=False), **key}, title
    )
    for (name, part), (left, middle, right) in zip(sections, grid, strict=True):
        _bias_axis(left, part)
        left.set(title=canvas.shown(name), ylabel="relative bias, % of ‖g‖")
        for ax, column, what in ((middle, "variance", "variance"), (right, "mse", "mse")):
            canvas.logarithmic(ax, "y", _all(part, column))
            ax.set(ylabel=f"{what} of one estimate")
        for ax, column in ((left, "bias"), (middle, "variance"), (right, "mse")):
            canvas.logarithmic(ax, "x", part["temperature"], plain=True)
            _ticks(ax, part["temperature"])
            for _, curve in part.groupby(keys, sort=True, dropna=False):
                _curve(ax, curve, looks, "temperature", column)
            ax.set(xlabel="temperature")
    return figure


def cost_growth(frame: pd.DataFrame) -> Figure | None:
    """Seconds and evaluations per estimate against each size that varies, one row each."""
    rows, looks, _ = _selected(frame)
    rows = rows[rows["seconds"].gt(0) & rows["evaluations"].gt(0)]
    slices = list(_slices(rows))
    if not slices:
        return None
    drawn = pd.concat([part for *_, part in slices])
    figure, grid = canvas.panels(
        len(slices), 2, (4.4, 2.8), _legend(drawn, looks), "Cost of one estimate as a problem grows"
    )
    for (title, size, part), (left, right) in zip(slices, grid, strict=True):
        left.set(title=canvas.shown(title, 60), ylabel="µs per estimate")
        right.set(ylabel="evaluations of f per estimate")
        part = part.assign(**{f"µs{e}": 1e6 * part[f"seconds{e}"] for e in ("", "_low", "_high")})
        for ax, column in ((left, "µs"), (right, "evaluations")):
            canvas.logarithmic(ax, "x", part[size], plain=True)
            _ticks(ax, part[size])
            canvas.logarithmic(ax, "y", _all(part, column), plain=True)
            for _, curve in part.groupby(["estimator", "estimator_params", "seed", "dtype"]):
                _curve(ax, curve.drop_duplicates(size), looks, size, column)
            ax.set(xlabel=_SIZES[size])
    return figure


def _selected(frame: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[str, Style], str]:
    """The measured rows of one parameter, every estimator's look, and the parameter's symbol."""
    frame = tables.annotate(frame)
    looks = canvas.styles(frame["estimator"].astype(str))
    parameter = next(iter(tables.parameters(frame)), "log_alpha")
    rows = tables.measured(frame, parameter).replace([np.inf, -np.inf], np.nan)
    return rows, looks, tables.SYMBOLS.get(parameter, parameter)


def _with_bias(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds bias in percent, with its ends; where it may be zero, `limit`, its upper end instead."""
    ends = {f"bias{end}": 100 * rows[f"relative_bias{end}"] for end in ("", "_low", "_high")}
    limit = ends["bias_low"].eq(0) & ends["bias_high"].gt(0)
    rows = rows.assign(**ends, limit=limit)
    upper = rows["bias_high"]
    for column in ("bias", "bias_low"):
        rows[column] = rows[column].mask(limit, upper)
    return rows


def _one_a_task(
    rows: pd.DataFrame, looks: Mapping[str, Style], key: dict[str, Any], title: str
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    sections = list(tables.sections(rows))
    columns = min(len(sections), 2 if len(sections) <= 4 else 3)
    legend = {**_legend(rows, looks), **key}
    lines = math.ceil(len(sections) / columns)
    figure, grid = canvas.panels(lines, columns, (4.8, 3.6), legend, title)
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    parts = []
    for ax, (name, part) in zip(grid.flat, sections, strict=False):
        norm = part["gradient_norm"].iloc[0]
        about = "" if np.isnan(norm) else f"   ‖g‖ = {number(norm)}"
        ax.set_title(canvas.shown(name) + about)
        parts.append((ax, part))
    return figure, parts


def _legend(
    rows: pd.DataFrame, looks: Mapping[str, Style], named: bool = True
) -> dict[str, Line2D]:
    """A handle for each estimator; `named` also tells which knobs the small labels show."""
    legend = {}
    for name, part in rows.groupby("estimator", sort=True):
        knobs = max(part["knobs"], key=len)
        text = f"{name} ({knobs})" if knobs and named else str(name)
        look = looks[name]
        legend[text] = Line2D(
            [], [], color=look.colour, marker=look.marker, linestyle="none", markersize=6
        )
    return legend


def _margin_key() -> dict[str, Line2D]:
    return {f"{UNBIASED_WITHIN:.0%} of ‖g‖": Line2D([], [], linestyle="--", **_GREY)}


def _bias_axis(ax: Axes, part: pd.DataFrame) -> None:
    margin = 100 * UNBIASED_WITHIN
    canvas.logarithmic(ax, "y", np.append(_all(part, "bias"), margin), plain=True)
    ax.axhline(margin, linestyle="--", **_GREY)


def _scatter(
    ax: Axes, part: pd.DataFrame, looks: Mapping[str, Style], x: str, y: str
) -> None:
    """Every row's point; those that differ in one numeric knob alone are joined."""
    for name, rows in part.groupby("estimator", sort=True):
        for _, each in rows.groupby(["seed", "dtype"], dropna=False):
            values = pd.to_numeric(each["values"], errors="coerce")
            joined = values.notna().all() and values.is_unique
            _curve(ax, each.assign(knob=values), looks, x, y, "knob" if joined else None)
"""
"""
