"""Nested levels: one task at all the values of some of its knobs, such as minibatches and seeds.

A run names them, outermost first.  Its settings are brought together, as those of a sweep of α are.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from gradest.report.frames import tables
from gradest.report.frames.sweeps import Settings


class Family(NamedTuple):
    """The settings of one task that differ in the nested knobs alone: all their rows."""

    name: str
    task: str
    task_params: str  # without the nested knobs
    values: dict[str, list[Any]]  # of every level, outermost first
    rows: pd.DataFrame

    @property
    def settings(self) -> int:
        return self.rows["task_params"].nunique()

    @property
    def label(self) -> str:
        return f"{self.name} over {self.settings} settings of {', '.join(self.values)}"


def find_families(frame: pd.DataFrame, levels: Sequence[str]) -> list[Family]:
    """The families in annotated rows, in the order in which they were run."""
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for task, params in frame[["task", "task_params"]].drop_duplicates().to_numpy():
        all_knobs = tables.parse_knobs(params)
        if levels and all(level in all_knobs for level in levels):
            rest = {k: v for k, v in all_knobs.items() if k not in levels}
            groups[str(task), json.dumps(rest, sort_keys=True)][params] = all_knobs
    if not groups:
        return []
    families = []
    every = Settings.of(frame)
    for (task, rest), settings in groups.items():
        if len(settings) > 1:
            rows = every.rows(task, settings)
            shown = every.distinguishing(task, json.loads(rest))
            values = {level: _distinct(settings.values(), level) for level in levels}
            families.append(Family(tables.label(task, shown), task, rest, values, rows))
    return families


def _distinct(settings: Any, level: str) -> list[Any]:
    values = {json.dumps(each[level]): each[level] for each in settings}
    return list(values.values())
