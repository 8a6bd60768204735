"""Curves of trainings: objectives, the gap that relaxing opens, the gradient on the way, images."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradest.inference import UNBIASED_WITHIN
from gradest.report.figures import canvas, style
from gradest.report.figures.canvas import Part
from gradest.report.figures.style import Look
from gradest.report.frames import tables
from gradest.report.frames.curves import over_seeds

_PANEL = (5.2, 3.8)
_NAMES = 0.18  # of an axis of steps that is left for names behind the last
_APART = 0.012  # of it between the points of two estimators
_ENDS = 0.55  # of a panel that is for where curves end; the rest shows how they come down
_FAR = 3.0  # times the upper quartile of the ends, from the best one: off the panel

Drawer = Callable[[Axes, pd.DataFrame, Mapping[str, Look]], Part]


@style.style()
def objectives(points: pd.DataFrame) -> Figure | None:
    """The negative ELBO of validation data, with hard codes, against the step."""
    curves = over_seeds(points, "valid", "negative_elbo")
    title = "Negative ELBO of validation data, discrete codes: mean over seeds"

    def draw(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> Part:
        part = _lines(ax, rows, look)
        ax.set(xlabel="step", ylabel="nats")
        return _without_the_far(ax, part, look)

    return _panels(points, [(curves, draw)], title)


@style.style()
def gap(points: pd.DataFrame) -> Figure | None:
    """The discrete objective less the one that is descended, on the same training data."""
    curves = over_seeds(points, "train", "gap")
    if not (curves["value"].abs() > curves["high"] - curves["low"]).any():
        return None  # nothing but unbiased values: no gap to show
    title = "What relaxing hides: the discrete objective less the one descended"

    def draw(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> Part:
        part = _lines(ax, rows, look)
        ax.axhline(0, **style.GUIDE)
        ax.set(xlabel="step", ylabel="nats")
        return part

    return _panels(points, [(curves, draw)], title)


@style.style()
def gradient(points: pd.DataFrame) -> Figure | None:
    """Variance and relative bias of the gradient at the states that training went through.

    Of a bias that may be zero the upper end of its interval is drawn.  Both are filled by what the
    interval of the bias says, as everywhere; where the bias is unknown, nothing.
    """
    title = "The gradient in log α along the way: its variance, and its bias against enumeration"
    variance = over_seeds(points, "train", "gradient_variance")
    bias = _rooted(over_seeds(points, "train", "gradient_bias_sq"))
    state = ["task_label", "label", "step"]
    variance = variance.assign(limit=False).merge(bias[[*state, "verdict"]], "left", state)
    lines = [
        (variance.fillna({"verdict": "inconclusive"}), _marks("variance tr Cov(ĝ)")),
        (bias, _marks("relative bias, % of ‖g‖", 100 * UNBIASED_WITHIN)),
    ]
    keys = style.verdict_keys() | ({} if bias.empty else style.bias_keys())
    return _panels(points, lines, title, keys)


@style.style()
def pictures(images: Mapping[tuple[str, str], Mapping[str, np.ndarray]]) -> Figure | None:
    """For each task and estimator: data, their reconstructions, samples of the prior."""
    if not images:
        return None
    rows = list(images.items())
    title = "Test data, reconstructions through a hard code, and samples"
    figure, grid = canvas.panels(len(rows), 3, (3.6, 0.62), title, {}, {})
    tasks = list(dict.fromkeys(task for task, _ in images))
    titles = dict(zip(tasks, style.titles(tasks, 100), strict=True))
    for line, ((task, label), parts) in enumerate(rows):
        for ax, stack in zip(grid[line], parts.values(), strict=True):
            ax.imshow(np.hstack(list(stack)), cmap="gray_r", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        name, _, knobs = label.partition(" ")
        words = "\n".join(style.text(part) for part in (name, knobs) if part)
        grid[line][0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=6.5)
        if line == 0 or rows[line - 1][0][0] != task:
            above = f"{titles[task]}\n" if len(tasks) > 1 else ""
            for ax, name in zip(grid[line], parts, strict=True):
                ax.set_title(f"{above}{name}" if ax is grid[line][0] else name)
    return figure


def _panels(
    points: pd.DataFrame,
    lines: Sequence[tuple[pd.DataFrame, Drawer]],
    title: str,
    keys: Mapping[str, Artist] | None = None,
) -> Figure | None:
    """For each set of curves a panel for every task that has any; None without numbers."""
    drawn = [
        (draw, task, rows)
        for curves, draw in lines
        for task, rows in curves[np.isfinite(curves["value"])].groupby("task_label", sort=False)
    ]
    if not drawn:
        return None
    look = style.looks(points["estimator"].astype(str))
    columns = min(len(drawn), 2)
    height = math.ceil(len(drawn) / columns)
    names = style.names(points[points["status"].eq("ok")], look)
    figure, grid = canvas.panels(height, columns, _PANEL, title, keys or {}, names)
    for ax in grid.flat[len(drawn) :]:
        ax.remove()
    tasks = list(dict.fromkeys(str(task) for _, task, _ in drawn))
    titles = dict(zip(tasks, style.titles(tasks, 60), strict=True))
    tags = {
        label: ", ".join(map(tables.plain, settings.values()))
        for label, settings in zip(points["label"], points["settings"], strict=True)
    }
    parts = []
    for ax, (draw, task, rows) in zip(grid.flat, drawn, strict=False):
        ax.set_title(titles[str(task)])
        part = draw(ax, rows.assign(tag=rows["label"].map(tags)), look)
        first, last = part[1]["step"].min(), part[1]["step"].max()
        ax.set_xlim(first - 0.03 * last - 0.5, (1 + _NAMES) * last + 0.5)
        parts.append(part)
    canvas.label_curves(figure, parts, look)
    return figure


def _lines(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> Part:
    """A line in a band for every curve, with a marker where it ends."""
    for (estimator, _), curve in rows.groupby(["estimator", "label"], sort=False):
        curve = curve.sort_values("step")
        colour = look[str(estimator)].colour
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        ax.fill_between(curve["step"], curve["low"], curve["high"], **band)
        ax.plot(curve["step"], curve["value"], color=colour, linewidth=1.2)
        last = curve.iloc[-1]
        ax.plot(last["step"], last["value"], look[str(estimator)].marker, color=colour)
    later = rows[rows["step"] > 0]
    if len(later):
        low, high = later["value"].min(), later["value"].max()
        room = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)
    return ax, rows, "step", "value"


def _without_the_far(ax: Axes, part: Part, look: Mapping[str, Look]) -> Part:
    """Limits that show where most curves end; a curve that ends above has an arrow at the top."""
    _, rows, x, y = part
    by_label = rows.sort_values(x).groupby("label", sort=False)
    ends = by_label.tail(1)
    best = ends[y].min()
    near = ends[y][ends[y] - best <= _FAR * (ends[y].quantile(0.75) - best)]
    # From a quarter of the way on, and the last two looks of a short training in any case.
    early = min(rows[x].max() / 4, rows[x].drop_duplicates().nlargest(2).min())
    quarter = rows[rows[x] >= early].sort_values(x).groupby("label").head(1)
    low = rows[y].min()
    high = max(low + (near.max() - low) / _ENDS, quarter[y].median())
    if high <= low:
        return part
    room = 0.06 * (high - low)
    high += room
    ax.set_ylim(low - room, high)
    inside = high - room / 2
    for row in ends[ends[y] > high].to_dict("records"):
        colour = look[str(row["estimator"])].colour
        ax.plot(row[x], inside, "^", color=colour, markersize=5)
    return ax, rows.assign(**{y: rows[y].clip(upper=inside)}), x, y


def _rooted(curves: pd.DataFrame) -> pd.DataFrame:
    """Relative bias in percent from its square; `limit` where it may be zero.

    `verdict`: biased where the interval excludes zero, unbiased where it ends within the margin.
    """
    squares = {c: curves[c] for c in ("value", "low", "high")}
    # A negative estimate is zero to noise, which reaches as far above zero as above the estimate.
    squares["high"] = squares["high"] - squares["value"].clip(upper=0)
    limit = squares["low"].le(0) & squares["high"].gt(0)
    roots = {c: 100 * x.clip(lower=0) ** 0.5 for c, x in squares.items()}
    upper = {c: roots[c].mask(limit, roots["high"]) for c in ("value", "low")}
    verdict = np.select(
        [squares["low"].gt(0), roots["high"].le(100 * UNBIASED_WITHIN)],
        ["biased", "unbiased"],
        "inconclusive",
    )
    return curves.assign(**{**roots, **upper}, limit=limit, verdict=verdict)


def _marks(what: str, margin: float | None = None) -> Drawer:
    """Points by verdict with bars, an arrow below those that are limits, a line at the margin."""

    def draw(ax: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> Part:
        labels = list(rows["label"].unique())
        beside = rows["label"].map(labels.index) - (len(labels) - 1) / 2
        column = "variance" if margin is None else "bias"
        rows = rows.rename(columns={"value": column, "low": f"{column}_low"})
        rows = rows.rename(columns={"high": f"{column}_high"}).assign(
            step=rows["step"] + _APART * rows["step"].max() * beside
        )
        ends = [rows[f"{column}_low"], rows[f"{column}_high"]]
        if margin is not None:
            ends.append(pd.Series([margin]))
            ax.axhline(margin, linestyle="--", zorder=1, **style.GUIDE)
        canvas.logarithmic(ax, "y", rows[column], ends, plain=margin is not None)
        for (estimator, _), curve in rows.groupby(["estimator", "label"], sort=False):
            canvas.points(ax, curve, look[str(estimator)], "step", column, by="step")
        ax.set(xlabel="step", ylabel=what)
        return ax, rows, "step", column

    return draw
