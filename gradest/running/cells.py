"""Cells: one thing to do and to record each, as plain data that can travel to any worker."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from gradest.contracts import built_in
from gradest.measuring.truth import Reference
from gradest.registry import Registry
from gradest.text import in_a_line

Payload = dict[str, Any]


# By what a number is computed, and not what is computed: fields that no draw depends on.
_BY_WHAT = ("code", "device", "task_version", "estimator_version")


@dataclass(frozen=True)
class Keyed:
    """Plain data with a key and a seed.

    The key tells whether a recorded row is still valid: it covers everything that determines the
    numbers, the code that computes them among it.  The seed depends on what is measured alone, so
    that another version of the code, which computes the same, gives the same numbers.
    """

    code: Mapping[str, str]  # digests of what computes the numbers, and the version of torch

    @cached_property
    def key(self) -> str:
        """SHA-256 of all fields."""
        return _hash(canonical(self._fields))

    @property
    def draw_seed(self) -> int:
        """The same in any company, at any place in a suite, and in every version of the code."""
        measured = {k: v for k, v in self._fields.items() if k not in _BY_WHAT}
        return int(_hash(f"draws {canonical(measured)}")[:15], 16)

    @property
    def _fields(self) -> dict[str, Any]:
        """Those that a number may depend on."""
        return asdict(self)


class Cell(Keyed, ABC):
    """What a suite is made of."""

    kind: ClassVar[str]  # of what is recorded
    settings: ClassVar[tuple[str, ...]] = ("seed",)  # fields that tell cells apart, beside members

    @property
    @abstractmethod
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The names, with their knobs, that the cell brings together."""

    @property
    def names(self) -> frozenset[str]:
        """Of what it brings together."""
        return frozenset(name for name, _ in self.members)

    @abstractmethod
    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        """What is recorded.  Raises Inapplicable where there is nothing to do."""

    @abstractmethod
    def expected_seconds(self, registry: Registry) -> float:
        """How long that will take, from a short trial.  Raises Inapplicable."""


@dataclass(frozen=True)
class EstimatorCell(Cell):
    """An estimator on a task."""

    task: str
    task_knobs: Mapping[str, Any]
    task_version: int
    estimator: str
    estimator_knobs: Mapping[str, Any]
    estimator_version: int
    seed: int

    @property
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        return (self.task, self.task_knobs), (self.estimator, self.estimator_knobs)


def foreign(cell: Cell, registry: Registry) -> bool:
    """Whether the cell executes code from outside the catalogue."""
    if not isinstance(cell, EstimatorCell):
        return False
    brought = registry.task(cell.task), registry.estimator(cell.estimator)
    return not all(map(built_in, brought))


def labels(cells: Sequence[Cell]) -> dict[str, str]:
    """key -> a short name for each cell, with the knobs in which these cells differ."""
    varying = _varying([member for cell in cells for member in cell.members])
    return {
        cell.key: in_a_line(
            " ".join(
                [
                    " × ".join(_call(name, knobs, varying[name]) for name, knobs in cell.members),
                    *(f"{k}={getattr(cell, k)}" for k in _telling(cells, type(cell))),
                ]
            )
        )
        for cell in cells
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _telling(cells: Sequence[Cell], kind: type[Cell]) -> list[str]:
    """The settings in which cells of that kind differ."""
    alike = [cell for cell in cells if type(cell) is kind]
    return [k for k in kind.settings if len({getattr(cell, k) for cell in alike}) > 1]


def _varying(members: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, set[str]]:
    """name -> the knobs in which its occurrences differ."""
    first: dict[str, Mapping[str, Any]] = {}
    varying: dict[str, set[str]] = {}
    for name, knobs in members:
        reference = first.setdefault(name, knobs)
        varying.setdefault(name, set()).update(k for k in knobs if knobs[k] != reference[k])
    return varying


def _call(name: str, knobs: Mapping[str, Any], shown: set[str]) -> str:
    inner = ", ".join(f"{k}={v}" for k, v in knobs.items() if k in shown)
    return f"{name}({inner})" if inner else name
