"""Figures of a run: functions from its rows to a matplotlib figure.

Each returns None where the rows do not hold what it shows.  All show the gradient with respect
to log α where that was measured.
"""

import json
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradest import canvas, looks, tables
from gradest.inference import UNBIASED_WITHIN
from gradest.looks import Look
from gradest.markdown import number

_SIZES = {"replicates": "R", "latents": "N", "categories": "K"}
_CURVE = 3  # temperatures that make a curve
_CELL = ["estimator", "estimator_params", "seed", "dtype"]


@looks.style()
def bias_against_variance(frame: pd.DataFrame) -> Figure | None:
    """Relative bias against variance, one panel a task."""
    rows, look, symbol = _selected(frame)
    rows = _with_bias(rows[rows["relative_bias_high"].notna() & rows["variance"].notna()])
    if rows.empty:
        return None
    title = f"Bias and variance of one estimate of the gradient in {symbol}: lower left is better"
    keys = {**looks.verdict_keys(), **looks.bias_keys()}
    figure, parts = _one_a_task(rows, look, title, keys)
    for ax, part in parts:
        _logarithmic(ax, "x", part, "variance")
        _bias_axis(ax, part)
        _scatter(ax, part, look, "variance", "bias")
        ax.set(xlabel="variance tr Cov(ĝ)", ylabel="relative bias, % of ‖g‖")
    _label(figure, parts, look, "variance", "bias")
    return figure


@looks.style()
def variance_against_evaluations(frame: pd.DataFrame) -> Figure | None:
    """Variance against evaluations of f, one panel a task, with lines of equal work."""
    rows, look, symbol = _selected(frame)
    rows = rows[rows["evaluations"].gt(0) & rows["variance"].notna()]
    if rows.empty:
        return None
    title = f"Variance and work of one estimate of the gradient in {symbol}: lower left is better"
    dotted = Line2D([], [], linestyle=":", **looks.GUIDE)
    keys = {**looks.verdict_keys(), "equal variance × evaluations": dotted}
    figure, parts = _one_a_task(rows, look, title, keys)
    for ax, part in parts:
        _size_axis(ax, part, "evaluations")
        _logarithmic(ax, "y", part, "variance")
        _equal_work(ax, part["work_variance"])
        _scatter(ax, part, look, "evaluations", "variance")
        ax.set(xlabel="evaluations of f per estimate", ylabel="variance tr Cov(ĝ)")
    _label(figure, parts, look, "evaluations", "variance")
    return figure


@looks.style()
def temperature_tradeoff(frame: pd.DataFrame) -> Figure | None:
    """Bias, variance and mse against temperature, one row a task.

    Of every estimator that was measured at three temperatures or more.
    """
    rows, look, symbol = _selected(frame)
    rows = _with_bias(_temperatures(rows))
    if rows.empty:
        return None
    sections = list(tables.sections(rows))
    keys = {**looks.verdict_keys(), **looks.bias_keys()}
    names = _names(rows, look, rows["others"])
    title = f"What the temperature trades, for one estimate of the gradient in {symbol}"
    figure, grid = canvas.panels(len(sections), 3, (3.4, 2.6), title, keys, names)
    columns = {"bias": "relative bias, % of ‖g‖", "variance": "variance tr Cov(ĝ)", "mse": "mse"}
    parts = []
    for axes, (name, part) in zip(grid, sections, strict=True):
        axes[0].set_title(looks.text(name))
        for ax, (column, what) in zip(axes, columns.items(), strict=True):
            shown = part[part[column].notna()]
            _bias_axis(ax, shown) if column == "bias" else _logarithmic(ax, "y", shown, column)
            _size_axis(ax, part, "temperature")
            _curves(ax, shown, look, "temperature", column)
            ax.set(xlabel="temperature", ylabel=what)
            parts.append((ax, shown, "temperature", column))
    _label_curves(figure, parts, look)
    return figure


@looks.style()
def cost_growth(frame: pd.DataFrame) -> Figure | None:
    """Seconds and evaluations per estimate against each size that varies, one row each."""
    rows, look, _ = _selected(frame)
    rows = rows[rows["seconds"].gt(0) & rows["evaluations"].gt(0)]
    rows = rows.assign(**{f"µs{e}": 1e6 * rows[f"seconds{e}"] for e in ("", "_low", "_high")})
    slices = list(_slices(rows))
    if not slices:
        return None
    drawn = pd.concat([part for *_, part in slices])
    names = _names(drawn, look, drawn["settings"])
    columns = {"µs": "µs", "evaluations": "evaluations of f"}
    title = "Cost of one estimate as the problem grows"
    figure, grid = canvas.panels(len(slices), 2, (4.8, 3.0), title, {}, names)
    parts = []
    for axes, (name, size, part) in zip(grid, slices, strict=True):
        axes[0].set_title(looks.text(name, 60))
        for ax, (column, what) in zip(axes, columns.items(), strict=True):
            _logarithmic(ax, "y", part, column, plain=True)
            _size_axis(ax, part, size)
            _curves(ax, part, look, size, column)
            ax.set(xlabel=f"{size} {_SIZES[size]}", ylabel=f"{what} per estimate")
            parts.append((ax, part, size, column))
    _label_curves(figure, parts, look)
    return figure


def _selected(frame: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[str, Look], str]:
    """The measured rows of one parameter, every estimator's look, and the parameter's symbol."""
    frame = tables.annotate(frame)
    look = looks.looks(frame["estimator"].astype(str))
    parameter = next(iter(tables.parameters(frame)), "log_alpha")
    rows = tables.measured(frame, parameter).replace([np.inf, -np.inf], np.nan)
    rows = rows.assign(tag=[_tag(settings) for settings in rows["settings"]])
    return rows, look, tables.SYMBOLS.get(parameter, parameter)


def _tag(settings: Mapping[str, object]) -> str:
    return ", ".join(map(tables.plain, settings.values()))


def _with_bias(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds bias in percent, and limit: where it may be zero its upper end stands for it."""
    ends = {f"bias{end}": 100 * rows[f"relative_bias{end}"] for end in ("", "_low", "_high")}
    rows = rows.assign(**ends, limit=ends["bias_low"].eq(0) & ends["bias_high"].gt(0))
    upper = {c: rows[c].mask(rows["limit"], rows["bias_high"]) for c in ("bias", "bias_low")}
    return rows.assign(**upper)


def _temperatures(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on curves of at least three temperatures, with `temperature` and the rest."""
    knobs = [tables.knobs(params) for params in rows["estimator_params"]]
    others = [{k: v for k, v in s.items() if k != "temperature"} for s in rows["settings"]]
    rows = rows.assign(
        temperature=pd.Series(
            [_positive(each.pop("temperature", None)) for each in knobs], rows.index, dtype=float
        ),
        curve=[json.dumps(each, sort_keys=True) for each in knobs],
        others=pd.Series(others, rows.index, dtype=object),
        tag=[_tag(each) for each in others],
    )
    rows["curve"] += rows["seed"].astype(str) + rows["dtype"].astype(str)
    rows = rows[rows["temperature"].notna()]
    keys = ["task", "task_params", "estimator", "curve"]
    values = rows.groupby(keys, dropna=False)["temperature"].transform("nunique")
    return rows[values >= _CURVE]


def _positive(value: object) -> float:
    number_like = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number_like and value > 0 else math.nan


def _slices(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Title, size and rows for every task and every size that varies while the others do not.

    Of the other sizes' values those are taken that most values of the size were measured at, the
    largest of these.  An enumerated row stands for every number of replicates.
    """
    counts = rows["replicates"].where(rows["method"] != "enumerated")
    rows = rows.assign(replicates=counts, curve=rows[_CELL].astype(str).agg(" ".join, axis=1))
    for task, part in rows.groupby("task", sort=False):
        for size in _SIZES:
            others = [s for s in _SIZES if s != size and part[s].notna().any()]
            found = part.groupby(others)[size].nunique().reset_index()
            if not found[size].max() >= 2:
                continue
            at = found.sort_values([size, *others]).iloc[-1][others]
            near = part[others].eq(at) | part[others].isna()
            fixed = ", ".join(f"{_SIZES[s]} = {at[s]:,g}" for s in others)
            yield f"{task} at {fixed}", size, part[near.all(axis=1) & part[size].notna()]


def _one_a_task(
    rows: pd.DataFrame, look: Mapping[str, Look], title: str, keys: Mapping[str, Line2D]
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    sections = list(tables.sections(rows))
    columns = min(len(sections), 2 if len(sections) <= 4 else 3)
    lines = math.ceil(len(sections) / columns)
    names = _names(rows, look, rows["settings"])
    figure, grid = canvas.panels(lines, columns, (4.8, 3.6), title, keys, names)
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    parts = [(ax, part) for ax, (_, part) in zip(grid.flat, sections, strict=False)]
    for (ax, part), (name, _) in zip(parts, sections, strict=True):
        norm = part["gradient_norm"].iloc[0]
        ax.set_title(looks.text(name) + ("" if np.isnan(norm) else f"   ‖g‖ = {number(norm)}"))
    return figure, parts


def _names(rows: pd.DataFrame, look: Mapping[str, Look], settings: pd.Series) -> dict[str, Line2D]:
    """A handle for each estimator, with the knobs whose values its labels show."""
    names = {}
    for name, part in settings.groupby(rows["estimator"], sort=True):
        knobs = dict.fromkeys(k for each in part for k in each)
        names[f"{name} ({', '.join(knobs)})" if knobs else str(name)] = look[str(name)].key()
    return names


def _logarithmic(ax: Axes, name: str, rows: pd.DataFrame, column: str, plain: bool = False) -> None:
    ends = [rows[f"{column}{end}"] for end in ("_low", "_high") if f"{column}{end}" in rows]
    canvas.logarithmic(ax, name, rows[column], ends, plain)


def _bias_axis(ax: Axes, rows: pd.DataFrame) -> None:
    margin = 100 * UNBIASED_WITHIN
    ends = [rows["bias_low"], rows["bias_high"], pd.Series([margin])]
    canvas.logarithmic(ax, "y", rows["bias"], ends, plain=True)
    ax.axhline(margin, linestyle="--", zorder=1, **looks.GUIDE)


def _size_axis(ax: Axes, rows: pd.DataFrame, size: str) -> None:
    canvas.logarithmic(ax, "x", rows[size], plain=True)
    canvas.ticks_at(ax, rows[size])


def _equal_work(ax: Axes, work: pd.Series) -> None:
    """Lines of equal variance × evaluations, at most six, at powers of ten."""
    positive = work[work > 0]
    if positive.empty:
        return
    first, last = (math.floor(math.log10(x)) for x in (positive.min(), positive.max()))
    lowest = getattr(ax.yaxis.get_transform(), "linthresh", 0.0)
    x = np.geomspace(*ax.get_xlim())
    for power in range(first, last + 2, math.ceil((last + 2 - first) / 6)):
        y = 10.0**power / x
        y[y < lowest] = np.nan
        ax.plot(x, y, linestyle=":", scalex=False, scaley=False, **looks.GUIDE)


def _scatter(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look], x: str, y: str) -> None:
    """A point a row; those of an estimator that differ in one numeric knob are joined."""
    for keys, part in rows.groupby(["estimator", "seed", "dtype"], sort=True, dropna=False):
        knob = pd.to_numeric(part["tag"], errors="coerce")
        path = knob.notna().all() and knob.is_unique and part[x].nunique() > 1
        canvas.points(
            ax, part.assign(knob=knob), look[str(keys[0])], x, y, "knob" if path else None
        )


def _curves(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look], x: str, y: str) -> None:
    for (name, _), part in rows.groupby(["estimator", "curve"], sort=True):
        canvas.points(ax, part, look[str(name)], x, y, x)


def _label(
    figure: Figure, parts: list[tuple[Axes, pd.DataFrame]], look: Mapping[str, Look], x: str, y: str
) -> None:
    """Every estimator's name at one of its points, then its knobs' values at the others."""
    figure.draw_without_rendering()
    for ax, rows in parts:
        labels = canvas.Labels(ax, rows[[x, y]].to_numpy())
        places = {key: _places(part, x, y) for key, part in rows.groupby(["estimator", "tag"])}
        named = set()
        for (name, tag), near in places.items():
            if name not in named and labels.write(f"{name} {tag}".strip(), near, look[name]):
                named.add(name)
                places[name, tag] = []
        for (name, tag), near in places.items():
            if name in named and tag and near:
                labels.write(tag, near, look[name])


def _label_curves(
    figure: Figure, parts: list[tuple[Axes, pd.DataFrame, str, str]], look: Mapping[str, Look]
) -> None:
    """Every curve's name at its last point, or wherever else on it there is room."""
    figure.draw_without_rendering()
    for ax, rows, x, y in parts:
        labels = canvas.Labels(ax, rows[[x, y]].to_numpy())
        for (name, tag), curve in rows.groupby(["estimator", "tag"]):
            near = _places(curve.sort_values(x, ascending=False), x, y)
            labels.write(f"{name} {tag}".strip(), near, look[str(name)])


def _places(rows: pd.DataFrame, x: str, y: str) -> list[canvas.Place]:
    return [tuple(place) for place in rows[[x, y]].to_numpy()]
