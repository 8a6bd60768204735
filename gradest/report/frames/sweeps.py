"""Sweeps of α: one task with a single latent, measured at many of its probabilities.

Rows keep no logits, so a sweep is recognized by its knob: a sequence that takes many values while
the other knobs of the task are equal, where each value can be read as the probabilities of the
latent.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from gradest.report.frames import tables

Point = tuple[float, ...]  # the probability of each category

_DIGITS = 12  # weights in proportion are one point, whatever rounding makes of them
_FEWEST = {2: 5, 3: 15}  # categories -> points that make a line, or cover a triangle


class Sweep(NamedTuple):
    """The settings of one task that differ in `knob` alone: all their rows, with `point`."""

    label: str
    knob: str
    rows: pd.DataFrame

    @property
    def categories(self) -> int:
        return len(self.rows["point"].iloc[0])


def find_sweeps(frame: pd.DataFrame) -> list[Sweep]:
    """The sweeps in annotated rows, in the order in which they were run."""
    sizes = tables.measured_rows(frame)[["task", "task_params", "batch", "latents", "categories"]]
    single = sizes[sizes["batch"].eq(1) & sizes["latents"].eq(1)].drop_duplicates()
    groups: dict[tuple[str, str, str, int], dict[str, Point]] = defaultdict(dict)
    for task, params, categories in single[["task", "task_params", "categories"]].to_numpy():
        all_knobs = tables.parse_knobs(params)
        for knob, value in all_knobs.items():
            point = _probabilities(value, int(categories))
            if point is not None:
                rest = json.dumps({k: v for k, v in all_knobs.items() if k != knob}, sort_keys=True)
                groups[str(task), knob, rest, len(point)][params] = point
    sweeps = []
    left = frame
    for (task, knob, rest, categories), points in groups.items():
        rows = left[left["task"].eq(task) & left["task_params"].isin(points)]
        rows = rows.assign(point=rows["task_params"].map(points))
        count = rows["point"].nunique()
        if count >= _FEWEST[categories]:
            settings = distinguishing_knobs(json.loads(rest), frame[frame["task"] == task])
            name = tables.label(task, settings)
            sweeps.append(Sweep(f"{name} over {count} values of {knob}", knob, rows))
            left = left.drop(rows.index)  # a setting is in one sweep
    return sweeps


def outside_sweeps(frame: pd.DataFrame) -> pd.DataFrame:
    """The annotated rows that belong to no sweep."""
    return frame.drop([index for sweep in find_sweeps(frame) for index in sweep.rows.index])


def distinguishing_knobs(rest: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The knobs in `rest` whose values distinguish a sweep from other settings of its task."""
    others = [tables.parse_knobs(params) for params in rows["task_params"].unique()]
    return {k: v for k, v in rest.items() if any(each.get(k) != v for each in others)}


def _probabilities(value: Any, categories: int) -> Point | None:
    """The probabilities of a latent with so many categories that a knob's value stands for, if any.

    A positive weight for each category, or of two categories the probability of the second.
    """
    if categories not in _FEWEST or not isinstance(value, list):
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in value):
        return None
    if len(value) == categories:
        return tuple(round(v / sum(value), _DIGITS) for v in value)
    if len(value) == 1 and categories == 2 and value[0] < 1:
        return round(1 - value[0], _DIGITS), value[0]
    return None
