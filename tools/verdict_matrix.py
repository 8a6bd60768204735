"""The README's picture: the verdict on every estimator on every task of the suite catalogue.

`make readme` and `make reference` draw it from the reference results, on a light and on a dark
background.  It has no numbers: the tables of a report give them, with their intervals.
"""

import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

import gradest
from gradest.report.figures import style
from tools.markers import replaced

SUITE = "catalogue"
DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = 3  # of estimators, each with all tasks
_NAME, _CELL, _LINE, _HEAD, _LEGEND, _MARGIN = 1.75, 0.19, 0.178, 0.85, 0.3, 0.6  # inches
_COLOURS = 64
_DOTS = 220  # per inch: twice what a README shows


_BEGIN = (
    "<!-- picture: drawn with the reference results of the suite catalogue, by `make reference` or "
    "`make readme` -->\n"
)
_END = "<!-- end of the picture -->\n"
_SHOWN = """\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/verdicts_dark.png">
  <img src="docs/verdicts_light.png" width="880" alt="A table of verdicts: estimators by tasks">
</picture>

Every estimator of the catalogue on the tasks of the suite `catalogue`, by the bias of its gradient.
*Unbiased*: the bias is shown to be below 2 % of the true gradient; *biased*: a test at the level of
1 % finds one; *inconclusive*: neither, at the precision of this suite. Estimators that are biased
on some task are below the line. These are [reference
results](docs/comparing.md#reference-results), which come with the package. The report of a run has
variances and computing times too, each with its uncertainty.
"""


class Ground(NamedTuple):
    """The colours of the picture on one background."""

    paper: str
    ink: str
    faint: str  # lines, and what does not apply
    pale: str
    unbiased: str
    biased: str


# Those of GitHub's pages; the shapes of the two verdicts differ too.
GROUNDS = {
    "light": Ground("#ffffff", "#1f2328", "#d1d9e0", "#9da7b1", "#0969da", "#bc4c00"),
    "dark": Ground("#0d1117", "#f0f6fc", "#3d444d", "#7d8590", "#58a6ff", "#f0883e"),
}


def write_pictures(folder: Path = DOCS) -> list[Path]:
    """Draw verdicts_light.png and verdicts_dark.png; returns their paths.

    Raises UsageError where there are no reference results of the suite.
    """
    frame = gradest.reference(SUITE)
    rows = frame[frame["parameter"].eq("log_alpha")]
    paths = []
    for name, ground in GROUNDS.items():
        paths.append(folder / f"verdicts_{name}.png")
        picture = io.BytesIO()
        draw_verdicts(rows, ground).savefig(picture, format="png", dpi=_DOTS)
        # A palette makes a quarter of the size; nothing in the file says when it was drawn.
        Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=_COLOURS).save(
            paths[-1], optimize=True
        )
    return paths


def show_in_readme(text: str) -> str:
    """The text of the README with the picture between its markers.

    Raises ValueError unless the markers are there once, in order.
    """
    return replaced(text, _BEGIN, _END, _SHOWN)


@style.theme()
def draw_verdicts(rows: pd.DataFrame, ground: Ground) -> Figure:
    """The estimators that are biased on no task first, then the others, each by name."""
    # Knobs only where an estimator was measured with several values of them.
    alone = rows.groupby("estimator")["label"].transform("nunique") == 1
    rows = rows.assign(label=rows["label"].mask(alone, rows["estimator"]))
    verdicts = rows.pivot_table("verdict", "label", "task_label", "first", dropna=False)
    verdicts = verdicts.reindex(columns=list(dict.fromkeys(rows["task_label"])))
    biased = verdicts.eq("biased").any(axis=1)
    entries: list[str | None] = [*biased.index[~biased], None, *biased.index[biased]]
    lines = -(-len(entries) // COLUMNS)
    block = _NAME + _CELL * len(verdicts.columns)
    width, height = COLUMNS * block + _MARGIN, lines * _LINE + _HEAD + _LEGEND
    figure = Figure((width, height), facecolor=ground.paper)
    FigureCanvasAgg(figure)
    for number in range(COLUMNS):
        left, part = number * block / width, entries[number * lines : (number + 1) * lines]
        ax = figure.add_axes((left, 0.01, block / width, lines * _LINE / height))
        _block(ax, [None if name is None else verdicts.loc[name] for name in part], lines, ground)
        if part:
            _heads(ax, list(verdicts.columns), ground)
    _legend(figure, ground)
    return figure


def _block(ax: Axes, rows: list[pd.Series | None], lines: int, ground: Ground) -> None:
    tasks = max((len(row) for row in rows if row is not None), default=1)
    ax.set(xlim=(-_NAME / _CELL, tasks), ylim=(lines, 0))
    ax.axis("off")
    marks = {
        "unbiased": {"color": ground.unbiased},
        "biased": {"color": ground.biased, "markerfacecolor": "none", "markeredgewidth": 1.3},
        "inconclusive": {"color": ground.pale, "alpha": 0.7},
    }
    for line, row in enumerate(rows):
        if row is None:  # between those found biased nowhere and the others
            ax.plot(
                [-_NAME / _CELL + 0.5, tasks], [line + 0.5] * 2, color=ground.faint, linewidth=1
            )
            continue
        name = str(row.name)
        ax.text(
            -0.4, line + 0.5, name, color=ground.ink, ha="right", va="center_baseline", fontsize=7.5
        )
        for across, verdict in enumerate(row):
            at = across + 0.5, line + 0.5
            if verdict in marks:
                ax.plot(*at, "o", markersize=5.6, **marks[verdict])
            else:
                ax.plot(*at, "_", color=ground.faint, markersize=4)


def _heads(ax: Axes, tasks: list[str], ground: Ground) -> None:
    for across, task in enumerate(tasks):
        ax.text(
            *(across + 0.3, -0.3, task.partition(" ")[0]),
            **{"color": ground.ink, "rotation": 45, "ha": "left", "va": "bottom", "fontsize": 7},
        )


def _legend(figure: Figure, ground: Ground) -> None:
    point = {"linestyle": "none", "marker": "o", "markersize": 5.6}
    handles = {
        "unbiased": Line2D([], [], color=ground.unbiased, **point),
        "biased": Line2D([], [], **point, color=ground.biased, markerfacecolor="none"),
        "inconclusive": Line2D([], [], color=ground.pale, alpha=0.7, **point),
        "does not apply": Line2D([], [], color=ground.faint, marker="_", linestyle="none"),
    }
    legend = figure.legend(
        list(handles.values()),
        list(handles),
        **{"loc": "upper left", "ncols": len(handles), "frameon": False, "fontsize": 8},
        borderaxespad=0.2,
    )
    for text in legend.get_texts():
        text.set_color(ground.ink)
