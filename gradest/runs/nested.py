"""Variance components from the cells of a run whose tasks differ only in nested factors."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.measurement import Measurement
from gradest.statistics import Component, estimate_components

_SHARED = ("task", "task_knobs", "estimator", "estimator_knobs", "seed", "dtype")
Levels = tuple[Any, ...]  # the values of the nested knobs in one cell


class _Member(NamedTuple):
    """What is kept of a measurement, whose moments would take all memory if a run has many."""

    means: Mapping[str, Tensor]
    variances: Mapping[str, float]  # of each parameter
    replicates: int


class Nested:
    """Collects cells and computes a row for each source of their variance.

    `levels` are names of task knobs, outermost first.  Cells without these knobs, with a non-finite
    estimate or from an incomplete grid are ignored.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = tuple(levels)
        self._families: dict[str, dict[Levels, _Member]] = defaultdict(dict)

    def add(self, cell: Mapping[str, Any], measurement: Measurement) -> None:
        knobs = cell["task_knobs"]
        if measurement.nonfinite:  # the variance is undefined
            return
        if self._levels and all(level in knobs for level in self._levels):
            rest = {k: v for k, v in knobs.items() if k not in self._levels}
            shared = {**cell, "task_knobs": rest}
            family = json.dumps([shared[name] for name in _SHARED], sort_keys=True)
            variances = {
                name: measurement.row(name).get("variance", math.nan)
                for name in measurement.parameters
                if name in measurement.means
            }
            member = _Member(measurement.means, variances, measurement.replicates)
            self._families[family][tuple(knobs[level] for level in self._levels)] = member

    def rows(self, suite: str) -> Iterator[tuple[Any, ...]]:
        """Rows with the columns results.SOURCES."""
        for family, members in self._families.items():
            task, task_knobs, estimator, knobs, seed, dtype = json.loads(family)
            params = (json.dumps(each, sort_keys=True) for each in (task_knobs, knobs))
            task_params, estimator_params = params
            identity = (suite, task, task_params, estimator, estimator_params, seed, dtype)
            axes = [list(dict.fromkeys(values)) for values in zip(*members, strict=True)]
            grid = [members.get(place) for place in itertools.product(*axes)]
            outermost = (self._levels[0], len(axes[0]))
            if None in grid or len(axes[0]) < 3 or min(map(len, axes)) < 2:
                continue
            shape = [len(axis) for axis in axes]
            for name in (n for n in grid[0].variances if _is_finite(n, grid)):
                for source, interval in _decompose(self._levels, name, grid, shape):
                    ends = (interval.estimate, interval.low, interval.high)
                    yield (*identity, name, source, *ends, *outermost)


def _is_finite(name: str, grid: Sequence[_Member]) -> bool:
    """Whether every cell of the grid has a finite mean and variance for this parameter."""
    return all(
        name in cell.variances
        and bool(cell.means[name].isfinite().all())
        and math.isfinite(cell.variances[name])
        for cell in grid
    )


def _decompose(
    levels: Sequence[str], name: str, grid: Sequence[_Member], shape: Sequence[int]
) -> list[Component]:
    means = torch.stack([m.means[name] for m in grid])
    variance = torch.tensor([m.variances[name] for m in grid], dtype=torch.float64)
    count = torch.tensor([m.replicates or torch.inf for m in grid], dtype=torch.float64)
    return estimate_components(
        levels,
        means.unflatten(0, tuple(shape)),
        variance.reshape(tuple(shape)),
        (variance / count).reshape(tuple(shape)),
    )
