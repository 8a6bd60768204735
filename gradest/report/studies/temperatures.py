"""Trainings that differ in a knob `temperature`: what each value of it leads to."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from gradest.report.frames import tables
from gradest.report.frames.curves import final, over_seeds

KNOB = "temperature"
# What is shown, in order: (split, metric) at the last step.
METRICS = (("test", "negative_elbo"), ("test", "negative_bound"), ("valid", "gap"))
_COLUMNS = ("task_label", "curve", "temperature", "metric", "value", "low", "high", "seeds")


class Best(NamedTuple):
    """Of one curve the temperature with the least bound of the test data, and its ties."""

    task_label: str
    curve: str
    limit: float  # 1/(K − 1), NaN where the task says no K
    temperature: float
    value: float
    low: float
    high: float
    tied: tuple[float, ...]


def swept(points: pd.DataFrame) -> pd.DataFrame:
    """The annotated points of trainings that differ in the temperature, all else being equal.

    Adds `temperature`, `curve`, the estimator with its other settings, and `limit`, 1/(K − 1): up
    to there the density of a Concrete variable of K categories is log-convex.
    """
    points = points[points["status"] == "ok"]
    knobs = [tables.knobs(text) for text in points["estimator_params"]]
    others = [{k: v for k, v in each.items() if k != KNOB} for each in knobs]
    named = zip(points["estimator"].astype(str), points["settings"], strict=True)
    shown = [
        tables.label(name, {k: v for k, v in settings.items() if k != KNOB and v is not None})
        for name, settings in named
    ]
    points = points.assign(
        temperature=pd.Series(
            [_number(each.get(KNOB)) for each in knobs], points.index, dtype=float
        ),
        curve=pd.Series(shown, points.index, dtype="str"),
        rest=pd.Series([json.dumps(o, sort_keys=True) for o in others], points.index, dtype="str"),
        limit=pd.Series(map(_limit, points["task_params"]), points.index, dtype=float),
    )
    values = points.groupby(["task_label", "estimator", "rest"])[KNOB].transform("nunique")
    return points[points[KNOB].notna() & values.gt(1)]


def at_the_end(points: pd.DataFrame) -> pd.DataFrame:
    """The swept points at their last step, over seeds: a row a task, curve, temperature, metric."""
    keys = points.drop_duplicates("label").set_index("label")
    parts = []
    for split, metric in METRICS:
        seen = over_seeds(points, split, metric)
        last = seen[seen["step"].eq(seen.groupby(["task_label", "label"])["step"].transform("max"))]
        parts.append(
            last.assign(
                metric=metric,
                curve=last["label"].map(keys["curve"]),
                temperature=last["label"].map(keys[KNOB]),
            )[list(_COLUMNS)]
        )
    return pd.concat(parts, ignore_index=True)


def best(points: pd.DataFrame) -> Iterator[Best]:
    """For each task and curve of the swept points, the task's best curve first."""
    for _, section in points.groupby("task_label", sort=False):
        found = [_best(rows) for _, rows in section.groupby(["estimator", "rest"], sort=False)]
        yield from sorted((each for each in found if each), key=lambda each: each.value)


def _best(rows: pd.DataFrame) -> Best | None:
    temperatures = rows.drop_duplicates("label").set_index("label")[KNOB]
    for task, ranked in final(rows):
        if ranked.empty or pd.isna(ranked["value_bound"].iloc[0]):
            return None
        first, ties = ranked.iloc[0], ranked[ranked["rank"] == 1]["label"].iloc[1:]
        return Best(
            task,
            str(rows["curve"].iloc[0]),
            float(rows["limit"].iloc[0]),
            float(temperatures[first["label"]]),
            *(float(first[f"{end}_bound"]) for end in ("value", "low", "high")),
            tuple(sorted(float(temperatures[label]) for label in ties)),
        )
    return None


def _limit(params: Any) -> float:
    categories = _number(tables.knobs(params).get("categories"))
    return 1 / (categories - 1) if categories > 1 else float("nan")


def _number(value: Any) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else float("nan")
