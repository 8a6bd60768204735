"""The numeric knobs of a task as a search space: `{task: categorical, K: [2, 4], alpha: [-4, 4]}`.

A range of a whole-number knob covers its integers; that of a knob which takes several numbers holds
for each of them.  A range that begins below zero, of a knob that must be positive, is that of the
natural logarithm: `alpha: [-4, 4]` covers log α.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from gradest.contracts import Task
from gradest.costs import Cost, Problem, outcomes
from gradest.errors import KnobError, UsageError
from gradest.knobs import build, knob_types
from gradest.runs.refutation.spaces import MOST_CODES, Entry, Range, Space
from gradest.support import shortened, suggestion


@dataclass(frozen=True)
class KnobRange:
    """The range of one knob, and the numbers of a row that it takes."""

    name: str
    low: float
    high: float
    length: int | None = None  # of a knob that takes several numbers
    integer: bool = False
    logarithmic: bool = False

    @property
    def size(self) -> int:
        return self.length or 1

    @property
    def bounds(self) -> list[Range]:
        # Integers are found by rounding down, so that each has the same share of the range.
        return [(self.low, self.high + (1 - 1e-9 if self.integer else 0))] * self.size

    def value(self, x: np.ndarray) -> Any:
        """The value of the knob for its numbers x."""
        numbers = np.floor(x) if self.integer else np.exp(x) if self.logarithmic else x
        plain = [int(v) if self.integer else float(v) + 0.0 for v in numbers]
        return plain[0] if self.length is None else tuple(plain)

    def rounded(self, x: np.ndarray, decimals: int) -> np.ndarray:
        """Numbers x for which the value of the knob has so many decimals, where it can."""
        if self.integer:
            return x
        if not self.logarithmic:
            return np.round(x, decimals)
        value = np.round(np.exp(x), decimals)
        return np.where(value > 0, np.log(np.maximum(value, 1e-300)), x)


@dataclass(frozen=True, eq=False)
class FamilySpace(Space):
    """The problems of a task with knobs in ranges."""

    cls: type[Task]
    ranges: tuple[KnobRange, ...]
    fixed: Mapping[str, Any]

    @property
    def bounds(self) -> np.ndarray:
        return np.array([pair for each in self.ranges for pair in each.bounds])

    def __str__(self) -> str:
        lengths = {each.length for each in self.ranges if each.length}
        return f"{self.cls.name}{''.join(f' of {n} numbers' for n in lengths)}"

    def task(self, x: np.ndarray) -> Task:
        return JoinedTasks([build(self.cls, self._knobs(row)) for row in x])

    def groups(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, Task]]:
        groups: dict[tuple[int, ...], list[tuple[int, Task]]] = {}
        for i, row in enumerate(x):
            try:
                task = build(self.cls, self._knobs(row))
            except KnobError:  # knobs that each are valid may contradict each other
                continue
            groups.setdefault(tuple(task.problem().logits.shape), []).append((i, task))
        for members in groups.values():
            rows, tasks = zip(*members, strict=True)
            yield np.array(rows), JoinedTasks(tasks)

    def entry(self, x: np.ndarray) -> Entry:
        knobs = self._knobs(x)
        return Entry(
            self.cls.name, {k: list(v) if isinstance(v, tuple) else v for k, v in knobs.items()}
        )

    def smaller(self, x: np.ndarray) -> Iterator[tuple[Space, np.ndarray]]:
        place = 0
        for each in self.ranges:
            if each.integer and each.length is None and np.floor(x[place]) > each.low:
                less = x.copy()
                less[place] -= 1
                yield self, less
            place += each.size
        length = next((each.length for each in self.ranges if each.length), 0)
        for lost in range(length if length > 1 else 0):
            ranges = tuple(
                replace(each, length=length - 1) if each.length else each for each in self.ranges
            )
            parts = [
                np.delete(part, lost) if each.length else part
                for each, part in zip(self.ranges, self._split(x), strict=True)
            ]
            yield replace(self, ranges=ranges), np.concatenate(parts)

    def rounded(self, x: np.ndarray, decimals: int) -> np.ndarray:
        parts = [
            each.rounded(part, decimals)
            for each, part in zip(self.ranges, self._split(x), strict=True)
        ]
        return np.clip(np.concatenate(parts, -1), *self.bounds.T)

    def _split(self, x: np.ndarray) -> list[np.ndarray]:
        return np.split(x, np.cumsum([each.size for each in self.ranges])[:-1], axis=-1)

    def _knobs(self, x: np.ndarray) -> dict[str, Any]:
        values = zip(self.ranges, self._split(x), strict=True)
        return {**self.fixed, **{each.name: each.value(part) for each, part in values}}


class JoinedTasks(Task):
    """Tasks of one data point each as the data points of one task.

    Raises UsageError for tasks that have more, or a cost that is more than a function of codes, and
    for tasks of different sizes.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._problems = [task.problem() for task in tasks]
        name = tasks[0].name
        if type(tasks[0]).penalty is not Task.penalty:
            raise UsageError(f"{name}: expected a task without a penalty, to search its problems")
        for problem in self._problems:
            f = problem.f
            if len(problem.logits) != 1 or f.module is not None or f.prior is not None or f.deep:
                raise UsageError(
                    f"{name}: expected problems of one data point without networks, a prior and "
                    "further layers, over which a search is possible"
                )
            if f.samples > 1 or f.dtype is not None or outcomes(problem) > MOST_CODES:
                raise UsageError(
                    f"{name}: expected problems of one sample in float64 with at most "
                    f"{MOST_CODES:,} codes, over which a search is possible"
                )
        if len({problem.logits.shape for problem in self._problems}) > 1:
            raise UsageError(f"{name}: expected problems of one size")
        self.relaxable = tasks[0].relaxable

    def problem(self, batch: Any = None) -> Problem:
        logits = torch.cat([each.logits.detach() for each in self._problems])
        return Problem(logits.double(), Cost(self._cost))

    def _cost(self, z: Tensor) -> Tensor:
        parts = zip(self._problems, z.split(1), strict=True)
        return torch.cat([problem.f(point) for problem, point in parts])


def family_spaces(
    cls: type[Task], ranges: Mapping[str, Any], lengths: Sequence[int]
) -> list[Space]:
    """The spaces of the knobs of a task, one for each length of the knobs with several numbers.

    `ranges` maps knobs to [low, high], or to a fixed value.  Raises UsageError for an unknown knob,
    a range of a knob that is not a number, and for knobs of several numbers without a length.
    """
    types = knob_types(cls)
    for name in ranges:
        if name not in types:
            raise UsageError(f"{cls.name} has no knob {shortened(name)}{suggestion(name, types)}")
    varied = {
        name: pair
        for name, pair in ranges.items()
        if isinstance(pair, list | tuple) and len(pair) == 2 and _kind(types[name]) is not None
    }
    if not varied:
        raise UsageError(f"{cls.name}: expected the range [low, high] of a knob that is a number")
    fixed = {name: value for name, value in ranges.items() if name not in varied}
    several = [name for name in varied if _kind(types[name])[0]]
    if several and not lengths:
        raise UsageError(f"{cls.name}: {several[0]} takes several numbers; set N or K to how many")
    if lengths and not several:
        raise UsageError(
            f"{cls.name}: N and K set how many numbers a knob takes, and none of "
            f"{', '.join(varied)} takes several"
        )
    return [
        FamilySpace(cls, tuple(_range(cls, n, p, length) for n, p in varied.items()), fixed)
        for length in lengths or [None]
    ]


def _range(cls: type[Task], name: str, pair: Sequence[Any], length: int | None) -> KnobRange:
    several, number, positive = _kind(knob_types(cls)[name])
    plain = all(isinstance(end, int | float) and not isinstance(end, bool) for end in pair)
    if not plain or not pair[0] < pair[1] or not np.isfinite(pair).all():
        raise UsageError(f"{cls.name}: {name}: expected a range [low, high], got {list(pair)}")
    integer = number is int
    if integer and any(int(end) != end for end in pair):
        raise UsageError(f"{cls.name}: {name}: expected whole numbers, got {list(pair)}")
    logarithmic = positive and not integer and pair[0] <= 0
    return KnobRange(
        name, float(pair[0]), float(pair[1]), length if several else None, integer, logarithmic
    )


def _kind(hint: Any) -> tuple[bool, type, bool] | None:
    """Whether a knob takes several numbers, their type, and whether they must be positive."""
    if get_origin(hint) is Annotated:
        inner, *constraints = get_args(hint)
        kind = _kind(inner)
        positive = any(isinstance(c, Gt) and c.gt == 0 for c in constraints)
        return kind and (kind[0], kind[1], kind[2] or positive)
    if get_origin(hint) is tuple:
        inner, *rest = get_args(hint)
        kind = _kind(inner)
        return (True, *kind[1:]) if kind and not kind[0] and rest == [...] else None
    return (False, hint, False) if hint in (int, float) else None
