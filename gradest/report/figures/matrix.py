"""The matrix of all estimators on all tasks: bias, and variance × evaluations."""

import itertools
from collections.abc import Mapping, Sequence, Set

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator

from gradest.report.figures import canvas, selection, style
from gradest.support import number

_CELL = (0.64, 0.2)  # inches
_CHARACTER = 0.065
_MOST = 24  # columns of a page
_BESIDE = 1.0  # inches for the scale of a panel
_MAP = "mako_r"  # seaborn's, from light to dark, so that it prints in grey
_DARK = 0.45  # of the scale, from where letters are white
_ABSENT = {"facecolor": "0.85", "linewidth": 0}
_ZERO = {"facecolor": "0.97", "edgecolor": "0.75", "hatch": "//////", "linewidth": 0}
_BIAS, _WORK = "bias", "work_variance"
_TITLES = {_BIAS: "relative bias, % of ‖g‖", _WORK: "variance × evaluations"}
_SCALES = {_BIAS: "%", _WORK: "relative to the lowest of the task"}


@style.theme()
def matrix(frame: pd.DataFrame) -> Figure | None:
    """Relative bias, and variance × evaluations: a row per estimator, a column per task.

    Of very many columns the settings of one task share one, which has their medians.  None unless
    there are two of both.  Estimators not found biased on any task come first, sorted
    by their mean rank of variance × evaluations; then the others, by their mean rank of bias.
    """
    frame = selection.mark_runs(frame)
    rows, symbol = selection.select_rows(frame)
    rows = selection.with_bias(selection.most_replicates(rows[rows["variance"].notna()]))
    if rows["task_label"].nunique() > _MOST:
        rows, frame = _folded(rows), frame.assign(task_label=frame["task"])
    tasks, names = list(dict.fromkeys(rows["task_label"])), _ordered(rows)
    if len(tasks) < 2 or len(names) < 2:
        return None
    shown = frame["label"].isin(names) & frame["task_label"].isin(tasks)
    absent = frame[frame["status"].ne("ok") & shown]
    absent = set(zip(absent["label"], absent["task_label"], strict=True))
    longest = max(map(len, style.titles(names, 48)))
    width = len(tasks) * _CELL[0] + _BESIDE + _CHARACTER * longest / 2
    height = max(len(names), 6) * _CELL[1] + 1.2
    title = f"All estimators on all tasks: one estimate of the gradient in {symbol}"
    keys = style.verdict_keys() | {"zero": Patch(**_ZERO), "skipped or failed": Patch(**_ABSENT)}
    figure, grid = canvas.panels(1, 2, (width, height), title, keys, {})
    for ax, column in zip(grid.flat, _TITLES, strict=True):
        _panel(ax, rows, column, names, tasks)
        _rest(ax, rows, names, tasks, absent)
        ax.axhline(_unbiased(rows, names), color="0.2", linewidth=0.8)
    grid[0, 0].set_yticks(np.arange(len(names)) + 0.5, style.titles(names, 48), rotation=0)
    canvas.lay_out(figure)
    return figure


def _ordered(rows: pd.DataFrame) -> list[str]:
    ranks = rows.groupby("task_label")[[_BIAS, _WORK]].rank()
    labels = rows[["label"]].assign(biased=rows["verdict"].eq("biased"), **ranks)
    labels = labels.groupby("label").agg({"biased": "any", _BIAS: "mean", _WORK: "mean"})
    by = labels[_BIAS].where(labels["biased"], labels[_WORK])
    return list(labels.assign(by=by).sort_values(["biased", "by"], kind="stable").index)


def _folded(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for all settings of a task, with medians; biased on one of them is biased."""
    lowest = rows[_WORK].where(rows[_WORK] > 0).groupby(rows["task_label"]).transform("min")
    rows = rows.assign(**{_WORK: rows[_WORK] / lowest.fillna(1.0)})
    groups = rows.groupby(["label", "task"], sort=False)
    verdicts = groups["verdict"].agg(lambda all_of: _worst(set(all_of)))
    limits = groups["limit"].mean() > 0.5
    found = groups[[_BIAS, _WORK]].median().assign(verdict=verdicts, limit=limits)
    return found.reset_index().assign(task_label=lambda found: found["task"])


def _worst(verdicts: Set[str]) -> str:
    return "biased" if "biased" in verdicts else min(verdicts)  # "inconclusive" < "unbiased"


def _unbiased(rows: pd.DataFrame, names: Sequence[str]) -> int:
    """How many estimators are not found biased on any task."""
    return len(set(names) - set(rows.loc[rows["verdict"].eq("biased"), "label"]))


def _panel(
    ax: Axes, rows: pd.DataFrame, column: str, names: Sequence[str], tasks: Sequence[str]
) -> None:
    cells = rows.pivot(index="label", columns="task_label", values=column)
    shades = cells.where(cells > 0).reindex(index=names, columns=tasks)
    if column == _WORK:
        shades = shades / shades.min()
    low, high = (1.0, 10.0) if shades.isna().all(axis=None) else _ends(shades)
    norm = LogNorm(low, high)
    ticks = {"format": "%g", "ticks": LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5))}
    bar = {"label": _SCALES[column], "aspect": 30, "pad": 0.02, **ticks}
    # The ends are those of the norm; without them seaborn warns where no number has a shade.
    scale = {"norm": norm, "vmin": low, "vmax": high}
    sns.heatmap(shades, ax=ax, cmap=_MAP, linewidths=0.5, cbar_kws=bar, **scale)
    ax.collections[0].colorbar.minorticks_off()
    ax.set(title=_TITLES[column], xlabel="", ylabel="", yticks=[])
    ax.set_xticks(np.arange(len(tasks)) + 0.5, style.titles(tasks, 24), rotation=30, ha="right")
    for row in rows.to_dict("records"):
        at = row["label"], row["task_label"]
        _cell(ax, names.index(at[0]), tasks.index(at[1]), row, column, norm(shades.at[at]))


def _rest(
    ax: Axes,
    rows: pd.DataFrame,
    names: Sequence[str],
    tasks: Sequence[str],
    absent: Set[tuple[str, str]],
) -> None:
    """The cells without numbers: grey where they were skipped or failed, else a dot."""
    measured = set(zip(rows["label"], rows["task_label"], strict=True))
    for (line, name), (across, task) in itertools.product(enumerate(names), enumerate(tasks)):
        if (name, task) in measured:
            continue
        if (name, task) in absent:
            ax.add_patch(Rectangle((across, line), 1, 1, **_ABSENT))
        else:
            ax.text(across + 0.5, line + 0.5, "·", ha="center", va="center")


def _ends(shades: pd.DataFrame) -> tuple[float, float]:
    """The ends of the scale: at least a decade apart, and not stretched by absurd numbers."""
    low, high = canvas.limits(pd.Series(shades.to_numpy().ravel()), [])
    return low, max(high, 10 * low)


def _cell(ax: Axes, line: int, across: int, row: Mapping, column: str, shade: float) -> None:
    """Its number, as an upper limit where the bias may be zero, and the mark of its verdict."""
    value = row[column]
    if value == 0:
        ax.add_patch(Rectangle((across, line), 1, 1, **_ZERO))
    ink = "white" if shade > _DARK else "0.15"
    text = number(value).replace(" × ", "·")
    text = f"< {text}" if column == _BIAS and row["limit"] else text
    ax.text(across + 0.57, line + 0.5, text, color=ink, fontsize=6.5, ha="center", va="center")
    face = {"unbiased": ink, "inconclusive": "0.6"}.get(row["verdict"], "none")
    ax.plot(across + 0.1, line + 0.5, "o", color=ink, markerfacecolor=face, markersize=3)
