"""Training temperature: the effect of a relaxation's temperature on the models trained with it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradest.report.documents.document import Part, Table
from gradest.report.figures import canvas, style
from gradest.report.frames import tables
from gradest.report.frames.curves import average_over_seeds, rank_final
from gradest.report.frames.loading import LoadedRun
from gradest.report.studies.concrete import log_convex_limit
from gradest.report.studies.study import Illustration, Pieces, Study
from gradest.support import interval, number

# The knobs that this study is about: of an estimator, and of a task.
_KNOB, _CATEGORIES = "temperature", "categories"
# The metrics of the figure, in order: (split, metric) at the last step.
_METRICS = (("test", "negative_elbo"), ("test", "negative_bound"), ("valid", "gap"))
_COLUMNS = ("task_label", "curve", "temperature", "metric", "value", "low", "high", "seeds")
_AXES = {
    "negative_elbo": "test −ELBO, nats",
    "negative_bound": "test −log p(x), nats",
    "gap": "discrete − optimized, nats",
}
_HEADERS = ("task", "estimator", "best λ", "tied with", "test −log p(x)", "1/(K − 1)")
_READING = (
    "For each group of training runs that differ only in the temperature λ, the table shows the "
    "λ with the lowest bound of the test data, evaluated with discrete samples, and the λ that do "
    "not differ from it significantly, at 5 % for all pairs of the group (Holm). The groups of a "
    "task are sorted by that bound. Brackets are 95 % intervals, as in the table above. The "
    "Concrete density of K categories has no mode inside the simplex for λ up to 1/(K − 1)."
)


def _sections(run: LoadedRun) -> Pieces[Iterable[Part]]:
    yield "training temperatures", lambda: section(run.points)


STUDY = Study(
    illustrations=(
        Illustration(
            "vae_temperature",
            lambda run: vae_temperature(run.points),
            "Discrete objectives, and their difference from the optimized objective, against the "
            "training temperature",
            "The upper panels show test data, evaluated with discrete samples; the lower panels "
            "show the discrete negative ELBO of the validation data minus the objective that is "
            "optimized. Points are means over seeds and bars their 95 % intervals, which are cut "
            "at the edge of a panel. Labels leave out knobs that are not set. For temperatures up "
            "to the dashed line, 1/(K − 1), the Concrete density of K categories has no mode "
            "inside the simplex.",
        ),
    ),
    sections=_sections,
)


class _Best(NamedTuple):
    """The temperature of a curve with the lowest bound of the test data, and its ties."""

    task_label: str
    curve: str
    limit: float  # NaN where the task has no number of categories
    temperature: float
    value: float
    low: float
    high: float
    tied: tuple[float, ...]


def select_trainings(points: pd.DataFrame) -> pd.DataFrame:
    """The annotated points of trainings that differ in the temperature alone.

    Adds `temperature`, `curve`, the estimator with its other settings, and `limit`, up to which the
    density of a Concrete variable is log-convex.
    """
    points = points[points["status"] == "ok"]
    knobs = [tables.parse_knobs(text) for text in points["estimator_params"]]
    others = [{k: v for k, v in each.items() if k != _KNOB} for each in knobs]
    named = zip(points["estimator"].astype(str), points["settings"], strict=True)
    shown = [
        tables.label(name, {k: v for k, v in settings.items() if k != _KNOB and v is not None})
        for name, settings in named
    ]
    points = points.assign(
        temperature=pd.Series(
            [_number(each.get(_KNOB)) for each in knobs], points.index, dtype=float
        ),
        curve=pd.Series(shown, points.index, dtype="str"),
        rest=pd.Series([json.dumps(o, sort_keys=True) for o in others], points.index, dtype="str"),
        limit=pd.Series(map(_limit, points["task_params"]), points.index, dtype=float),
    )
    values = points.groupby(["task_label", "estimator", "rest"])[_KNOB].transform("nunique")
    return points[points[_KNOB].notna() & values.gt(1)]


def _last_step(points: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds at the last step, for each task, curve, temperature and metric."""
    keys = points.drop_duplicates("label").set_index("label")
    parts = []
    for split, metric in _METRICS:
        seen = average_over_seeds(points, split, metric)
        last = seen[seen["step"].eq(seen.groupby(["task_label", "label"])["step"].transform("max"))]
        parts.append(
            last.assign(
                metric=metric,
                curve=last["label"].map(keys["curve"]),
                temperature=last["label"].map(keys[_KNOB]),
            )[list(_COLUMNS)]
        )
    return pd.concat(parts, ignore_index=True)


def _best_temperatures(points: pd.DataFrame) -> Iterator[_Best]:
    """The best temperature of each task and curve; the best curve of a task comes first."""
    for _, section in points.groupby("task_label", sort=False):
        curves = [_best(rows) for _, rows in section.groupby(["estimator", "rest"], sort=False)]
        yield from sorted((each for each in curves if each), key=lambda each: each.value)


def _best(rows: pd.DataFrame) -> _Best | None:
    temperatures = rows.drop_duplicates("label").set_index("label")[_KNOB]
    for task, ranked in rank_final(rows):
        if ranked.empty or pd.isna(ranked["value_bound"].iloc[0]):
            return None
        first, ties = ranked.iloc[0], ranked[ranked["rank"] == 1]["label"].iloc[1:]
        return _Best(
            task,
            str(rows["curve"].iloc[0]),
            float(rows["limit"].iloc[0]),
            float(temperatures[first["label"]]),
            *(float(first[f"{end}_bound"]) for end in ("value", "low", "high")),
            tuple(sorted(float(temperatures[label]) for label in ties)),
        )
    return None


def _limit(params: Any) -> float:
    categories = _number(tables.parse_knobs(params).get(_CATEGORIES))
    return log_convex_limit(int(categories)) if categories > 1 else math.nan


def _number(value: Any) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else math.nan


@style.theme()
def vae_temperature(points: pd.DataFrame) -> Figure | None:
    """Discrete objectives, and the relaxation gap, one panel per task; None without rows.

    A line for each estimator and its other settings; 1/(K − 1) is marked.
    """
    trainings = select_trainings(points)
    rows = _last_step(trainings)
    columns = {"curve": "estimator", "low": "value_low", "high": "value_high"}
    rows = rows[rows["value"].notna()].rename(columns=columns).assign(tag="")
    if rows.empty:
        return None
    styles = style.assign_styles(rows["estimator"])
    names = {name: styles[name].key() for name in dict.fromkeys(rows["estimator"])}
    limits = trainings.groupby("task_label", sort=False)["limit"].first()
    limits = limits[limits.index.isin(rows["task_label"])]
    keys = {"1/(K − 1)": Line2D([], [], linestyle="--", **style.GUIDE)}
    title = "Effect of the training temperature on objectives with discrete samples"
    metrics = [metric for metric in _AXES if rows["metric"].eq(metric).any()]
    figure, grid = canvas.panels(len(metrics), len(limits), (3.8, 2.9), title, keys, names)
    parts = []
    for line, metric in zip(grid, metrics, strict=True):
        titles = style.titles(limits.index, 50)
        for ax, name, (task, limit) in zip(line, titles, limits.items(), strict=True):
            part = rows[rows["task_label"].eq(task) & rows["metric"].eq(metric)]
            _panel(ax, part, styles, limit, rows["temperature"])
            ax.set(xlabel="temperature λ", ylabel=_AXES[metric])
            if metric == metrics[0]:
                ax.set_title(name)
            if metric == "gap":
                ax.axhline(0, **style.GUIDE)
            parts.append((ax, part, "temperature", "value"))
    canvas.label_curves(figure, parts, styles)
    return figure


def _panel(
    ax: Axes,
    rows: pd.DataFrame,
    styles: Mapping[str, style.Style],
    limit: float,
    values: pd.Series,
) -> None:
    for name, curve in rows.groupby("estimator", sort=False):
        canvas.points(ax, curve, styles[str(name)], "temperature", "value", by="temperature")
    marked = values if pd.isna(limit) else pd.concat([values, pd.Series([limit])])
    canvas.logarithmic(ax, "x", marked, plain=True)
    canvas.ticks_at(ax, values)
    if not pd.isna(limit):
        ax.axvline(limit, linestyle="--", zorder=1, **style.GUIDE)
    if len(rows):  # wide intervals of few seeds would squeeze the points
        low, high = rows["value"].min(), rows["value"].max()
        room = 0.15 * max(high - low, 1e-3)
        ax.set_ylim(low - room, high + room)


def section(points: pd.DataFrame) -> Iterator[Part]:
    """A row for each task and each group of trainings; nothing where no temperature varies."""
    best = list(_best_temperatures(select_trainings(points)))
    if not best:
        return
    yield "### Best training temperature"
    yield _READING
    lines = [
        [
            *(each.task_label, each.curve, number(each.temperature)),
            ", ".join(map(number, each.tied)) or "none",
            interval(each.value, each.low, each.high),
            number(each.limit),
        ]
        for each in best
    ]
    yield Table(_HEADERS, lines, left=2)
