"""Sweeps: one task measured at many values of one of its knobs, while the others are equal.

A sweep of α is over the probabilities of a single latent.  Rows keep no logits, so it is recognized
by its knob: a sequence whose values can be read as these probabilities.  Other sweeps are over a
number, with more values than a figure has room for panels.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradest.report.frames import tables

Point = tuple[float, ...]  # the probability of each category, or the number alone
_Group = tuple[str, str, str, int]  # task, knob, the other knobs, length of the points

_DIGITS = 12  # weights in proportion are one point, whatever rounding makes of them
# The length of a point -> points that make a curve of numbers, a line of α, or cover a triangle.
_FEWEST = {1: 13, 2: 5, 3: 15}


class Sweep(NamedTuple):
    """The settings of one task that differ in `knob` alone: all their rows, with `point`."""

    label: str
    knob: str
    rows: pd.DataFrame

    @property
    def size(self) -> int:
        """The number of categories of a sweep of α, or 1 for one over a number."""
        return len(self.rows["point"].iloc[0])


def find_sweeps(frame: pd.DataFrame) -> list[Sweep]:
    """The sweeps in annotated rows, in the order in which they were run."""
    sizes = tables.measured_rows(frame)[["task", "task_params", "batch", "latents", "categories"]]
    groups: dict[_Group, dict[str, Point]] = defaultdict(dict)
    for task, params, batch, latents, categories in sizes.drop_duplicates().to_numpy():
        all_knobs = tables.parse_knobs(params)
        for knob, value in all_knobs.items():
            single = batch == latents == 1
            point = _number(value) or (_probabilities(value, int(categories)) if single else None)
            if point is not None:
                rest = json.dumps({k: v for k, v in all_knobs.items() if k != knob}, sort_keys=True)
                groups[str(task), knob, rest, len(point)][params] = point
    sweeps: list[Sweep] = []
    taken: set[tuple[str, str]] = set()  # a setting is in one sweep
    settings = Settings.of(frame)
    for (task, knob, rest, size), points in _in_order(groups):
        free = {params: point for params, point in points.items() if (task, params) not in taken}
        count = len(set(free.values()))
        if count >= _FEWEST[size]:
            taken |= {(task, params) for params in free}
            rows = settings.rows(task, free)
            rows = rows.assign(point=rows["task_params"].map(free))
            name = tables.label(task, settings.distinguishing(task, json.loads(rest)))
            sweeps.append(Sweep(f"{name} over {count} values of {knob}", knob, rows))
    return sweeps


def outside_sweeps(frame: pd.DataFrame) -> pd.DataFrame:
    """The annotated rows that belong to no sweep."""
    return frame.drop([index for sweep in find_sweeps(frame) for index in sweep.rows.index])


class Settings(NamedTuple):
    """The settings of every task in a frame, so that their rows are found without a search."""

    frame: pd.DataFrame
    places: Mapping[tuple[str, str], np.ndarray]  # task and params -> positions of their rows
    values: Mapping[str, Mapping[str, set[str]]]  # task -> knob -> its values as JSON

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Settings":
        """Raises ValueError when the params of a row are not a JSON object."""
        columns = ["task", "task_params"]
        places = frame.groupby(columns, sort=False, dropna=False).indices
        knobs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for task, params in frame[columns].drop_duplicates().to_numpy():
            knobs[str(task)].append(tables.parse_knobs(params))
        values = {
            task: {
                name: {json.dumps(each.get(name)) for each in every}
                for name in {name for each in every for name in each}
            }
            for task, every in knobs.items()
        }
        return cls(frame, places, values)

    def rows(self, task: str, params: Iterable[str]) -> pd.DataFrame:
        """The rows of a task with one of these params, in the order of the frame."""
        places = [self.places[task, each] for each in params]
        return self.frame.iloc[np.sort(np.concatenate(places))]

    def distinguishing(self, task: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the knobs of one setting that distinguish it from others of its task."""
        return {k: v for k, v in knobs.items() if len(self.values[task][k]) > 1}


def _in_order(
    groups: Mapping[_Group, dict[str, Point]],
) -> list[tuple[_Group, dict[str, Point]]]:
    """Groups of settings as they are tried: α first, then one knob of a task after the other.

    On a grid of two numbers every setting is on a curve of each; those of one knob are all drawn
    before the other takes settings away from them.
    """
    place: dict[tuple[str, str], int] = {}
    for task, knob, _, size in groups:
        if size == 1:
            place.setdefault((task, knob), len(place))
    return sorted(groups.items(), key=lambda each: place.get(each[0][:2], -1))


def _number(value: Any) -> Point | None:
    """The point of a value that is a number."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _probabilities(value: Any, categories: int) -> Point | None:
    """The probabilities of a latent with so many categories that a knob's value stands for, if any.

    A positive weight for each category, or of two categories the probability of the second.
    """
    if categories not in (2, 3) or not isinstance(value, list):
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in value):
        return None
    if len(value) == categories:
        return tuple(round(v / sum(value), _DIGITS) for v in value)
    if len(value) == 1 and categories == 2 and value[0] < 1:
        return round(1 - value[0], _DIGITS), value[0]
    return None
