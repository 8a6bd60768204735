"""The reference results as a script for the browser: a page from file:// may fetch no JSON."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import scipy

from gradest.commands import list as catalogue
from gradest.contracts import Estimator
from gradest.plugins import citations
from gradest.report.frames import tables
from gradest.runs import suite_descriptions
from gradest.statistics import CONFIDENCE, columns_of
from tools.site import standings
from tools.site.standings import Suite

_NUMBERS = (
    *columns_of("bias"),
    *columns_of("variance"),
    *columns_of("relative_bias"),
    *("evaluations", "gradient_evaluations", "gradient_norm"),
    *columns_of("seconds"),
    "rank",
)
_TEXTS = ("parameter", "label", "estimator", "verdict")
_FEWEST = 4  # values of a knob that make an axis
_MOST_COMPARISONS = 400
_DIGITS = 5


def script(suites: Mapping[str, Suite], estimators: Mapping[str, type[Estimator]]) -> str:
    """A script that sets `gradest.data`: suites with their tasks and rows, and the estimators."""
    data = {
        "columns": ["task", *_TEXTS, *_NUMBERS],
        "suites": [_suite(name, suite) for name, suite in suites.items()],
        "estimators": {name: _estimator(cls) for name, cls in estimators.items()},
        "widths": widths(_MOST_COMPARISONS),
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"window.gradest = window.gradest || {{}};\nwindow.gradest.data = {text};\n"


def widths(most: int) -> list[float]:
    """How much wider intervals are if n of them hold together (Bonferroni): n = 0, 1, …, `most`."""
    missed = (1 - CONFIDENCE) / 2
    alone = scipy.stats.norm.isf(missed)
    return [
        1.0,
        *(round(float(scipy.stats.norm.isf(missed / n) / alone), 5) for n in range(1, most + 1)),
    ]


def _estimator(cls: type[Estimator]) -> dict[str, Any]:
    return {
        "headline": citations.headline(cls),
        "unbiased": cls.unbiased,
        "bias": catalogue.bias(cls),
        "needs": catalogue.needs(cls),
        "categories": cls.categories,
        "evaluations": catalogue.evaluations(cls),
    }


def _suite(name: str, suite: Suite) -> dict[str, Any]:
    labels, rows = list(dict.fromkeys(suite.frame["task_label"])), suite.rows
    rows = rows.assign(**standings.counted_bias(rows), task=rows["task_label"].map(labels.index))
    return {
        "name": name,
        "description": suite_descriptions().get(name, ""),
        "tasks": list(_tasks(suite.frame)),
        "rows": [
            [
                row["task"],
                *(str(row[text]) for text in _TEXTS),
                *(_number(row[n]) for n in _NUMBERS),
            ]
            for row in rows.to_dict("records")
        ],
    }


def _tasks(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Each task with its place on an axis, or on the simplex, where one of its knobs varies."""
    sizes = frame.groupby("task_label")[["latents", "categories"]].first()  # of measured rows
    first = frame.drop_duplicates("task_label")
    for name, rows in first.groupby("task", sort=False):
        params = [tables.parse_knobs(text) for text in rows["task_params"]]
        varying = [k for k in params[0] if len({json.dumps(each.get(k)) for each in params}) > 1]
        for (_, row), each in zip(rows.iterrows(), params, strict=True):
            place = _place(varying, each) if len(params) >= _FEWEST else {}
            size = {n: _number(x) for n, x in sizes.loc[row["task_label"]].items()}
            yield {"label": row["task_label"], "task": name, **size, **place}


def _place(varying: list[str], params: Mapping[str, Any]) -> dict[str, Any]:
    """The value of the one knob that varies, if it is a number or weights of three categories."""
    if len(varying) != 1:
        return {}
    (knob,) = varying
    value = params[knob]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int | float):
        return {"axis": knob, "at": value}
    if isinstance(value, list) and len(value) == 3 and sum(value) > 0:
        return {"axis": knob, "point": [round(weight / sum(value), _DIGITS) for weight in value]}
    return {}


def _number(value: Any) -> float | None:
    """A number in as many digits as intervals need; None for what is missing or infinite."""
    if pd.isna(value) or not math.isfinite(value):
        return None
    rounded = float(f"{float(value):.{_DIGITS}e}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded
