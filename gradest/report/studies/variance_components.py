"""Where the variance comes from: its parts, of the draws and of each nested level."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradest.inference.sources import DRAWS
from gradest.report.figures import canvas, style
from gradest.report.frames import tables

_WIDTH = 0.7  # of the points of one source, where sources are 1 apart


@style.style()
def variance_by_source(
    rows: pd.DataFrame, everyone: Iterable[str], nested: Sequence[str]
) -> Figure | None:
    """The parts of every estimator's variance, a panel for each task and parameter.

    `rows` are labelled sources; `nested` the levels, outermost first.  None without rows.
    """
    rows = rows[np.isfinite(rows["variance"].astype(float))]
    if rows.empty:
        return None
    sections = list(rows.groupby(["task_label", "parameter"], sort=False))
    look, columns = style.looks(everyone), min(len(sections), 2)
    lines = math.ceil(len(sections) / columns)
    over, values = rows[["over", "values"]].iloc[0]
    title = f"Where the variance comes from; intervals are over {int(values)} values of {over}"
    keys, names = style.part_keys(), style.names(rows, look)
    figure, grid = canvas.panels(lines, columns, (6.6, 4.4), title, keys, names)
    parts = []
    for ax in grid.flat[len(sections) :]:
        ax.remove()
    titles = style.titles((f"{task}, gradient in {_symbol(p)}" for (task, p), _ in sections), 60)
    for ax, name, (_, section) in zip(grid.flat, titles, sections, strict=False):
        ax.set_title(name)
        sources = ordered(section, nested)
        drawn = _placed(section, sources)
        canvas.logarithmic(ax, "y", drawn["part"], [drawn["part_low"], drawn["part_high"]])
        for estimator, points in drawn.groupby("estimator", sort=False):
            canvas.points(ax, points, look[str(estimator)], "place", "part")
        ax.set_xlim(-0.6, len(sources) - 0.4)
        ax.set_xticks(range(len(sources)), [style.text(s) for s in sources])
        ax.grid(visible=False, axis="x")
        for border in range(1, len(sources)):
            ax.axvline(border - 0.5, zorder=0, color="0.85", linewidth=0.8)
        ax.set(ylabel="variance of one estimate")
        parts.append((ax, drawn, "place", "part"))
    canvas.label_curves(figure, parts, look)
    return figure


def _symbol(parameter: object) -> str:
    return tables.SYMBOLS.get(str(parameter), str(parameter))


def ordered(rows: pd.DataFrame, nested: Sequence[str]) -> list[str]:
    """The sources of rows: draws, then the levels from the innermost out."""
    found = [str(source) for source in rows["source"].unique()]
    known = [DRAWS, *reversed(nested)]
    return [s for s in known if s in found] + [s for s in found if s not in known]


def _placed(rows: pd.DataFrame, ordered: Sequence[str]) -> pd.DataFrame:
    """Adds where each point is; of what was estimated as zero or less the upper end is drawn.

    Adds `part` with its ends, `limit`, and a `verdict` on whether there is anything.
    """
    labels = list(rows["label"].unique())
    value, low, high = (rows[f"variance{end}"].astype(float) for end in ("", "_low", "_high"))
    limit = value.le(0) & high.gt(0)
    part = value.mask(limit, high).clip(lower=0)
    across = rows["label"].map(labels.index).astype(float) + 0.5 - len(labels) / 2
    return rows.assign(
        place=rows["source"].map(list(ordered).index) + _WIDTH * across / len(labels),
        limit=limit,
        part=part,
        part_low=low.clip(lower=0).mask(limit, part),
        part_high=high.clip(lower=0),
        verdict=np.where(low.gt(0) | high.le(0), "unbiased", "inconclusive"),
    )
