"""Descents: the logits of tasks moved along each estimator's gradients, with exact objectives."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradest.report.documents.document import Part, Table
from gradest.report.documents.latex import Environment
from gradest.report.documents.prose import in_a_line
from gradest.report.figures import style
from gradest.report.figures.canvas import Part as Panel
from gradest.report.figures.curves import Drawer, lines, panels
from gradest.report.figures.style import Style
from gradest.report.frames import tables
from gradest.report.frames.curves import ALONE, average_over_seeds, final_descents
from gradest.report.frames.loading import LoadedRun
from gradest.report.studies.study import Illustration, Pieces, Study
from gradest.statistics import Interval
from gradest.support import Quantity, count, interval, markup, number

# The metrics of the figure and the labels of their axes.
_AXES = {
    "value": "E f",
    "probability": "probability",
    "gradient_norm": "‖∇E f‖",
    "log_variance": "ln tr Cov(ĝ)",
}
_HEADERS = (
    *("estimator", "learning rate", "seeds", "E f", "probability", "‖∇E f‖", "ln tr Cov(ĝ)"),
    *("steps", "time of all seeds, s"),
)
_READING = (
    "The logits of a task are the parameters: {optimiser} {moves} the estimates of ∇E f, one per "
    "step. E f and its gradient are exact, not estimates of the method. *Probability* is that of "
    "category {category} of latent {latent}, counted from 0. Rows are sorted by E f at the last "
    "step. Numbers are means over seeds with their 95 % t intervals; ln tr Cov(ĝ), the logarithm "
    "of the variance of one estimate at the last step, is the median over seeds, with its interval "
    "by order statistics where there are six seeds or more."
)
_CHOSEN = " Of several learning rates, the table shows the one with the best E f at the last step."


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "descents", lambda: section(run)


def _latex(run: LoadedRun) -> Pieces[Environment]:
    if not run.descents.empty:
        for task, rows in final_descents(run.descents, run.maximises):
            yield f"descent-{task}", partial(_environment, task, rows)


STUDY = Study(
    illustrations=(
        Illustration(
            "descents",
            lambda run: descents(run.descents),
            "E f, a probability, the norm of the exact gradient and the variance of its estimates, "
            "against the step",
            "Lines are means over seeds, and bands are their 95 % intervals. E f and its gradient "
            "are exact. The variance is that of one estimate at the logits of the step, on a "
            "logarithmic scale; a variance of zero is not drawn.",
        ),
    ),
    sections=_sections,
    latex=_latex,
)


@style.theme()
def descents(points: pd.DataFrame) -> Figure | None:
    """The metrics of descents, a panel for each task and metric."""
    if points.empty:
        return None
    drawers = [
        (average_over_seeds(points, ALONE, metric), _drawer(label))
        for metric, label in _AXES.items()
    ]
    return panels(points, drawers, "Descents of the logits, means over seeds")


def _drawer(label: str) -> Drawer:
    def draw(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style]) -> Panel:
        part = lines(ax, rows, styles, from_start=True)
        ax.set(xlabel="step", ylabel=label)
        return part

    return draw


def section(run: LoadedRun) -> Iterator[Part]:
    """A table for each task, and the descents that failed."""
    points = run.descents
    if points.empty:
        return
    settings = (run.facts.get("training") or {}).get("descent") or {}
    yield "## Descents"
    yield _reading(settings) + (_CHOSEN if points["rates"].gt(1).any() else "")
    for task, rows in final_descents(points, run.maximises):
        yield f"### {markup.escape(str(task))}"
        params = points.loc[points["task_label"].eq(task), "task_params"].iloc[0]
        yield markup.escape(in_a_line(tables.parse_knobs(params)))
        yield table(rows)
    failed = points[points["status"] != "ok"].drop_duplicates("key")
    if not failed.empty:
        yield "### Failed descents"
        yield "\n".join(map(_failure, failed.to_dict("records")))
    yield "All points of all curves, unrounded: `descents.parquet` and `descents.csv`"


def table(rows: pd.DataFrame) -> Table:
    """Descents of one task, as `gradest.report.frames.curves.final_descents` has them."""
    return Table(_HEADERS, [_line(row) for row in rows.to_dict("records")], left=1)


def _reading(settings: Mapping[str, Any]) -> str:
    chosen = settings.get("probability") or {}
    optimiser = ", ".join(
        f"{name} ({in_a_line(own)})" for name, own in (settings.get("optimiser") or {}).items()
    )
    return _READING.format(
        optimiser=markup.escape(optimiser or "an optimiser"),
        moves="ascends" if settings.get("maximise") else "descends",
        category=chosen.get("category", "?"),
        latent=chosen.get("latent", "?"),
    )


def _failure(row: Mapping[str, Any]) -> str:
    which = f", learning rate {number(row['learning_rate'])}" if row["rates"] > 1 else ""
    descent = f"{markup.escape(row['label'])} on {markup.escape(row['task_label'])}{which}"
    return f"- {descent}: {row['status']}: {markup.escape(row['reason'])}"


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        row["label"],
        number(row["learning_rate"]),
        count(row["seeds"]),
        *_numbers(row),
        count(row["step"]),
        number(row["seconds"]),
    ]


def _numbers(row: Mapping[str, Any]) -> list[Quantity]:
    return [interval(*Interval.of(row, metric).ends) for metric in _AXES]


def _environment(task: str, rows: pd.DataFrame) -> Environment:
    headers = ("estimator", "learning\nrate", "seeds", *_AXES.values())
    body = [
        [row["label"], number(row["learning_rate"]), count(row["seeds"]), *_numbers(row)]
        for row in rows.to_dict("records")
    ]
    caption = f"Descents of the logits of {task} with each estimator, at the last step."
    notes = (
        "Small numbers are the distances to the ends of the 95 % interval over seeds. "
        "ln tr Cov(ĝ) is the median over seeds, and the others are means."
    )
    return Environment(caption, notes, [Table(headers, body, left=1)])
