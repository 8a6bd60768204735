"""Training: models trained with each estimator, by their objectives, gradients and images."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradest.report.documents.document import Part, Strong, Table
from gradest.report.documents.latex import Environment
from gradest.report.documents.prose import in_a_line
from gradest.report.figures import canvas, style
from gradest.report.figures.canvas import Part as Panel
from gradest.report.figures.curves import Drawer, lines, panels
from gradest.report.figures.style import Style
from gradest.report.frames import tables
from gradest.report.frames.curves import average_over_seeds, rank_final
from gradest.report.frames.loading import LoadedRun
from gradest.report.frames.ranking import LEVEL
from gradest.report.studies.study import BEST, LIMITS, MARGIN, Illustration, Pieces, Study
from gradest.statistics import UNBIASED_WITHIN
from gradest.support import Quantity, count, interval, markup, number

_APART = 0.012  # of it between the points of two estimators
_ENDS = 0.55  # of a panel that is for where curves end; the rest shows how they come down
_FAR = 3.0  # times the upper quartile of the ends, from the best one: off the panel

_HEADERS = (
    *("rank", "estimator", "learning rate", "seeds", "test −log p(x)", "test −ELBO"),
    *("steps", "training time, s"),
)
_READING = (
    "Costs are in nats per data point; lower is better. They are evaluated with discrete samples, "
    "whatever the estimator relaxed in training. Rows are ranked by *−log p(x)* of the test data, "
    "that is its bound −log 1/m Σ p(x, zᵢ)/q(zᵢ | x) with m = {samples} samples. Brackets are 95 % "
    "intervals: over seeds, on this test set, where there are several seeds; with one seed, over "
    "the test data, for this training. A row shares the rank of the rows above it unless it "
    "differs significantly from the first row with that rank, at 5 % for all pairs of a table "
    "(Holm)."
)
_CHOSEN = (
    " Of several learning rates, the table shows the one with the lowest negative ELBO of the "
    "validation data at the last step."
)


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "trainings", lambda: section(run.points, run.facts.get("training") or {})


def _latex(run: LoadedRun) -> Pieces[Environment]:
    if not run.points.empty:
        for task, rows in rank_final(run.points[run.points["status"] == "ok"]):
            yield f"training-{task}", partial(_environment, task, rows)


STUDY = Study(
    illustrations=(
        Illustration(
            "training_objectives",
            lambda run: training_objectives(run.points),
            "Negative ELBO of the validation data against the training step, one panel per task",
            "Evaluated with discrete samples, whatever was relaxed in training. Lines are means "
            "over seeds, and bands are their 95 % intervals; with one seed, the interval is over "
            "data points. Early steps may lie above a panel; an arrow at its top marks a curve "
            "that ends above it.",
        ),
        Illustration(
            "training_gap",
            lambda run: training_gap(run.points),
            "The discrete objective minus the objective that is optimized, against the training "
            "step",
            "On the same training data. Above the grey line, the relaxed objective is lower than "
            "the discrete one; below the line it is higher, for example where the divergence of "
            "relaxed densities is larger than the discrete one. Bands are 95 % intervals over "
            "seeds.",
        ),
        Illustration(
            "training_gradient",
            lambda run: training_gradient(run.points),
            "Variance and bias of the gradient at steps of the training",
            "With respect to log α, for a few data points; the bias is relative to the exact "
            "gradient, where all discrete samples can be enumerated. Points are hollow where the "
            "interval of the bias excludes zero, filled where it ends below the margin, and pale "
            f"otherwise or where the bias is unknown; bars are 95 % intervals; {LIMITS}; {MARGIN}.",
        ),
        Illustration(
            "pictures",
            lambda run: pictures(run.images),
            "Test data, their reconstructions and generated samples, one line per estimator",
            "A reconstruction is decoded from one discrete sample of its data point. Generated "
            "samples are means of p(x | z) with z drawn from the prior; without a prior, "
            "from other discrete samples of the same data.",
        ),
    ),
    sections=_sections,
    latex=_latex,
)


@style.theme()
def training_objectives(points: pd.DataFrame) -> Figure | None:
    """The negative ELBO of the validation data, with discrete samples, against the step."""
    curves = average_over_seeds(points, "valid", "negative_elbo")
    title = "Negative ELBO of the validation data with discrete samples, mean over seeds"

    def draw(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style]) -> Panel:
        part = lines(ax, rows, styles)
        ax.set(xlabel="step", ylabel="nats")
        return _limit_to_most(ax, part, styles)

    return panels(points, [(curves, draw)], title)


@style.theme()
def training_gap(points: pd.DataFrame) -> Figure | None:
    """The discrete objective minus the objective that is optimized, on the same training data."""
    curves = average_over_seeds(points, "train", "gap")
    if not (curves["value"].abs() > curves["high"] - curves["low"]).any():
        return None  # no estimator relaxes: the gap is noise
    title = "Relaxation gap: the discrete objective minus the objective that is optimized"

    def draw(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style]) -> Panel:
        part = lines(ax, rows, styles)
        ax.axhline(0, **style.GUIDE)
        ax.set(xlabel="step", ylabel="nats")
        return part

    return panels(points, [(curves, draw)], title)


@style.theme()
def training_gradient(points: pd.DataFrame) -> Figure | None:
    """Variance and relative bias of the gradient at some steps of the training.

    A bias that may be zero is drawn at the upper end of its interval.  The points of both are
    filled by the interval of the bias; where the bias is unknown they are pale.
    """
    title = "Variance and bias of the gradient in log α at steps of the training"
    variance = average_over_seeds(points, "train", "gradient_variance")
    bias = _rooted(average_over_seeds(points, "train", "gradient_bias_sq"))
    state = ["task_label", "label", "step"]
    variance = variance.assign(limit=False).merge(bias[[*state, "paleness"]], "left", state)
    drawn = [
        (variance.fillna({"paleness": style.PALE}), _marks("variance tr Cov(ĝ)")),
        (bias, _marks("relative bias, % of ‖g‖", 100 * UNBIASED_WITHIN)),
    ]
    keys = style.verdict_keys() | ({} if bias.empty else style.bias_keys())
    return panels(points, drawn, title, keys)


@style.theme()
def pictures(images: Mapping[tuple[str, str], Mapping[str, np.ndarray]]) -> Figure | None:
    """Data, reconstructions and generated samples, for each task and estimator."""
    if not images:
        return None
    rows = list(images.items())
    title = "Test data, reconstructions from one discrete sample, and generated samples"
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


def _limit_to_most(ax: Axes, part: Panel, styles: Mapping[str, Style]) -> Panel:
    """Limits that show where most curves end; a curve that ends above has an arrow at the top."""
    _, rows, x, y = part
    by_label = rows.sort_values(x).groupby("label", sort=False)
    ends = by_label.tail(1)
    best = ends[y].min()
    near = ends[y][ends[y] - best <= _FAR * (ends[y].quantile(0.75) - best)]
    # From a quarter of the way on, and the last two points of a short training in any case.
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
        colour = styles[str(row["estimator"])].colour
        ax.plot(row[x], inside, "^", color=colour, markersize=5)
    return ax, rows.assign(**{y: rows[y].clip(upper=inside)}), x, y


def _rooted(curves: pd.DataFrame) -> pd.DataFrame:
    """Relative bias in percent from its square; `limit` where it may be zero.

    Points are hollow where the interval excludes zero and filled where it ends within the margin.
    """
    squares = {c: curves[c] for c in ("value", "low", "high")}
    # A negative estimate is zero to noise, which reaches as far above zero as above the estimate.
    squares["high"] = squares["high"] - squares["value"].clip(upper=0)
    limit = squares["low"].le(0) & squares["high"].gt(0)
    roots = {c: 100 * x.clip(lower=0) ** 0.5 for c, x in squares.items()}
    upper = {c: roots[c].mask(limit, roots["high"]) for c in ("value", "low")}
    paleness = np.select(
        [squares["low"].gt(0), roots["high"].le(100 * UNBIASED_WITHIN)],
        [style.HOLLOW, style.FILLED],
        style.PALE,
    )
    return curves.assign(**{**roots, **upper}, limit=limit, paleness=paleness)


def _marks(what: str, margin: float | None = None) -> Drawer:
    """Points with bars, an arrow below upper limits, and a line at the margin."""

    def draw(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Style]) -> Panel:
        labels = list(rows["label"].unique())
        offset = rows["label"].map(labels.index) - (len(labels) - 1) / 2
        column = "variance" if margin is None else "bias"
        rows = rows.rename(columns={"value": column, "low": f"{column}_low"})
        rows = rows.rename(columns={"high": f"{column}_high"}).assign(
            step=rows["step"] + _APART * rows["step"].max() * offset
        )
        ends = [rows[f"{column}_low"], rows[f"{column}_high"]]
        if margin is not None:
            ends.append(pd.Series([margin]))
            ax.axhline(margin, linestyle="--", zorder=1, **style.GUIDE)
        canvas.logarithmic(ax, "y", rows[column], ends, plain=margin is not None)
        for (estimator, _), curve in rows.groupby(["estimator", "label"], sort=False):
            canvas.points(
                ax, curve, styles[str(estimator)], "step", column, by="step", fill="paleness"
            )
        ax.set(xlabel="step", ylabel=what)
        return ax, rows, "step", column

    return draw


def section(points: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[Part]:
    """A table for each task, and the trainings that failed; `settings` are those of run.json."""
    if points.empty:
        return
    yield "## Training"
    samples = settings.get("evaluation", {}).get("test_samples", "m")
    yield _READING.format(samples=samples) + (_CHOSEN if points["rates"].gt(1).any() else "")
    annealed = settings.get("anneal") or {}
    if annealed:
        knobs = ", ".join(map(markup.escape, annealed))
        yield f"Labels show the initial value of annealed knobs: {knobs}."
    for task, rows in rank_final(points[points["status"] == "ok"]):
        yield f"### {markup.escape(str(task))}"
        params = points.loc[points["task_label"].eq(task), "task_params"].iloc[0]
        yield markup.escape(in_a_line(tables.parse_knobs(params)))
        yield ranking(rows)
    failed = points[points["status"] != "ok"]
    if not failed.empty:
        yield "### Not trained"
        yield "\n".join(map(_failure, failed.to_dict("records")))
    yield "All points of all curves, unrounded: `training.parquet` and `training.csv`"


def ranking(rows: pd.DataFrame) -> Table:
    """Ranked trainings of one task, as `gradest.report.frames.curves.rank_final` has them."""
    return Table(_HEADERS, [_line(row) for row in rows.to_dict("records")], left=2)


def _failure(row: Mapping[str, Any]) -> str:
    which = f"seed {row['seed']}"
    if row["rates"] > 1:
        which += f", learning rate {number(row['learning_rate'])}"
    training = f"{markup.escape(row['label'])} on {markup.escape(row['task_label'])}"
    return f"- {training}, {which}: {row['status']}: {markup.escape(row['reason'])}"


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        "" if pd.isna(row["rank"]) else count(row["rank"]),
        row["label"],
        number(row["learning_rate"]),
        count(row["seeds"]),
        *_objectives(row),
        count(row["step"]),
        number(row["seconds"]),
    ]


def _objectives(row: Mapping[str, Any]) -> list[Quantity]:
    return [
        interval(*(row[f"{end}_{metric}"] for end in ("value", "low", "high")))
        for metric in ("bound", "elbo")
    ]


def _environment(task: str, rows: pd.DataFrame) -> Environment:
    headers = ("estimator", "learning\nrate", "seeds", "test\n−log p(x)", "test\n−ELBO", "seconds")
    lines = []
    best = rows["rank"].eq(1) & rows["rank"].gt(1).any()
    for bold, row in zip(best, rows.to_dict("records"), strict=True):
        bound, elbo = _objectives(row)
        lines.append(
            [
                Strong(row["label"]) if bold else row["label"],
                *(number(row["learning_rate"]), count(row["seeds"])),
                *(bound.in_bold() if bold else bound, elbo, number(row["seconds"])),
            ]
        )
    caption = (
        f"Models trained on {task} with each estimator: nats per data point with discrete samples, "
        "lower is better, and seconds of training."
    )
    notes = (
        "Small numbers are the distances to the ends of the 95 % interval, over seeds, or over "
        "test data where there is one seed."
    )
    if best.any():
        notes += " " + BEST.format(by="−log p(x)", level=100 * LEVEL)
    return Environment(caption, notes, [Table(headers, lines, left=1)])
