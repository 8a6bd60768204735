"""What the temperature of a relaxation leads to when a model is trained with it."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradest.report.figures import canvas, style
from gradest.report.studies import temperatures

_SAID = {
    "negative_elbo": "test −ELBO, nats",
    "negative_bound": "test −log p(x), m codes, nats",
    "gap": "discrete − descended, nats",
}


@style.style()
def vae_temperature(points: pd.DataFrame) -> Figure | None:
    """Discrete objectives, and their gap to the one descended, a panel a task; None without rows.

    A line for each estimator and its other settings; 1/(n − 1) is marked.
    """
    swept = temperatures.swept(points)
    rows = temperatures.at_the_end(swept)
    columns = {"curve": "estimator", "low": "value_low", "high": "value_high"}
    rows = rows[rows["value"].notna()].rename(columns=columns).assign(tag="")
    if rows.empty:
        return None
    look = style.looks(rows["estimator"])
    names = {name: look[name].key() for name in dict.fromkeys(rows["estimator"])}
    limits = swept.groupby("task_label", sort=False)["limit"].first()
    limits = limits[limits.index.isin(rows["task_label"])]
    keys = {"1/(n − 1)": Line2D([], [], linestyle="--", **style.GUIDE)}
    title = "What the temperature of training leads to, with discrete codes"
    metrics = [metric for metric in _SAID if rows["metric"].eq(metric).any()]
    figure, grid = canvas.panels(len(metrics), len(limits), (3.8, 2.9), title, keys, names)
    parts = []
    for line, metric in zip(grid, metrics, strict=True):
        titles = style.titles(limits.index, 50)
        for ax, name, (task, limit) in zip(line, titles, limits.items(), strict=True):
            part = rows[rows["task_label"].eq(task) & rows["metric"].eq(metric)]
            _panel(ax, part, look, limit, rows["temperature"])
            ax.set(xlabel="temperature λ", ylabel=_SAID[metric])
            if metric == metrics[0]:
                ax.set_title(name)
            if metric == "gap":
                ax.axhline(0, **style.GUIDE)
            parts.append((ax, part, "temperature", "value"))
    canvas.label_curves(figure, parts, look)
    return figure


def _panel(
    ax: Axes,
    rows: pd.DataFrame,
    look: Mapping[str, style.Look],
    limit: float,
    values: pd.Series,
) -> None:
    for name, curve in rows.groupby("estimator", sort=False):
        canvas.points(ax, curve, look[str(name)], "temperature", "value", by="temperature")
    marked = values if pd.isna(limit) else pd.concat([values, pd.Series([limit])])
    canvas.logarithmic(ax, "x", marked, plain=True)
    canvas.ticks_at(ax, values)
    if not pd.isna(limit):
        ax.axvline(limit, linestyle="--", zorder=1, **style.GUIDE)
    if len(rows):  # what few seeds leave open would squeeze all else
        low, high = rows["value"].min(), rows["value"].max()
        room = 0.15 * max(high - low, 1e-3)
        ax.set_ylim(low - room, high + room)
