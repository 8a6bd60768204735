"""Cells, the units of work of a run, as plain data that can be sent to any worker."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from gradest.contracts import built_in
from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.randomness import seed_of
from gradest.runs.journal import Record
from gradest.support import in_a_line

Payload = dict[str, Any]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
# Fields that describe how a number is computed, not what is computed; no draw depends on them.
_IMPLEMENTATION = ("code", "device", "task_version", "estimator_version")


@dataclass(frozen=True)
class Keyed:
    """Plain data with a key and a seed.

    The key decides whether a recorded row is still valid: it covers everything that determines the
    numbers, including the code that computes them.  The seed depends only on what is measured, so
    that another version of the code that computes the same quantity gives the same numbers.
    """

    code: Mapping[str, str]  # digests of the code, and the version of torch

    @property
    def plain(self) -> dict[str, Any]:
        """All fields, which are plain data; nothing is copied, as `asdict` would for each cell."""
        return {name: getattr(self, name) for name in _names(type(self))}

    @cached_property
    def key(self) -> str:
        """SHA-256 of all fields."""
        return _hash(canonical(self._fields))

    @property
    def draw_seed(self) -> int:
        """The seed of the draws, independent of other cells, of the suite and of the code."""
        return seed_of(f"draws {canonical(self._measured)}")

    @property
    def _measured(self) -> dict[str, Any]:
        """The fields that describe what is measured."""
        return {k: v for k, v in self._fields.items() if k not in _IMPLEMENTATION}

    @property
    def _fields(self) -> dict[str, Any]:
        """The fields that a number may depend on."""
        return self.plain


class CellTables(ABC):
    """The tables that the cells of one kind fill."""

    optional: ClassVar[tuple[str, ...]] = ()  # files that a run without such cells does not have

    def __init__(self, run: Mapping[str, Any]) -> None:
        """`run` is the content of run.json."""
        self.suite: str = run["suite"]
        self.warnings: list[str] = []  # a message for each row that could not be computed

    def begin(self, out: Path) -> None:  # noqa: B027  (most tables fit into memory)
        """Prepare for `add`, if a table is written into the folder piece by piece."""

    @abstractmethod
    def add(self, record: Record) -> None:
        """Add the rows of a recorded cell, all or none; an invalid payload may raise any error."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Write the tables into a folder, that of `begin`."""


class Cell(Keyed, ABC):
    """A unit of work of a suite."""

    kind: ClassVar[str]  # the kind of its record
    tables: ClassVar[type[CellTables]]  # where its rows go
    settings: ClassVar[tuple[str, ...]] = ("seed",)  # other fields in which cells may differ

    @property
    @abstractmethod
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The names and knobs of the tasks, estimators or properties in the cell."""

    @property
    def names(self) -> frozenset[str]:
        """The names of the members."""
        return frozenset(name for name, _ in self.members)

    @abstractmethod
    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        """The payload of the record.  Raises Inapplicable if there is nothing to measure."""

    @classmethod
    def without_times(cls, payload: Payload) -> Payload:
        """The payload of a record without its times, in which two equal runs differ."""
        return payload

    @abstractmethod
    def expected_seconds(self, registry: Registry) -> float:
        """An estimate of the run time from a short trial.  Raises Inapplicable."""


@dataclass(frozen=True)
class EstimatorCell(Cell):
    """A cell with an estimator and a task."""

    task: str
    task_knobs: Mapping[str, Any]
    task_version: int
    estimator: str
    estimator_knobs: Mapping[str, Any]
    estimator_version: int

    @property
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        return (self.task, self.task_knobs), (self.estimator, self.estimator_knobs)


def foreign(cell: Cell, registry: Registry) -> bool:
    """Whether the cell executes code from outside the catalogue.

    Members that are neither tasks nor estimators belong to gradest.
    """
    classes = {**registry.tasks, **registry.estimators}
    return not all(built_in(classes[name]) for name in cell.names if name in classes)


def labels(cells: Sequence[Cell]) -> dict[str, str]:
    """key -> a short label for each cell, with the knobs in which these cells differ."""
    varying = _varying_knobs([member for cell in cells for member in cell.members])
    settings = {kind: _differing_settings(cells, kind) for kind in {type(cell) for cell in cells}}
    return {
        cell.key: in_a_line(
            " ".join(
                [
                    " × ".join(_call(name, knobs, varying[name]) for name, knobs in cell.members),
                    *(f"{k}={getattr(cell, k)}" for k in settings[type(cell)]),
                ]
            )
        )
        for cell in cells
    }


def label_of(record: Record) -> str:
    """A short label for a recorded cell."""
    cell = record["cell"]
    return " × ".join(
        str(cell[name]) for name in ("task", "estimator", "name", "holds") if name in cell
    )


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# The fields that rows are named after.
_NAMING = (
    *("task", "task_knobs", "estimator", "estimator_knobs", "name", "knobs"),
    *("seed", "seeds", "dtype", "replicates", "learning_rate", "holds", "for_all"),
)


def same_cell(recorded: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """Whether a recorded cell, as plain data, gives rows of the names that a cell gives."""
    names = [name for name in _NAMING if name in cell]
    return canonical([recorded.get(name) for name in names]) == canonical([cell[n] for n in names])


def name_of(cell: Mapping[str, Any]) -> str:
    """What the rows of a cell, as plain data, are named after, as text."""
    return canonical({name: cell[name] for name in _NAMING if name in cell})


def canonical(data: Any) -> str:
    """Plain data as text, the same for equal data."""
    return _CANONICAL.encode(data)


def _differing_settings(cells: Sequence[Cell], kind: type[Cell]) -> list[str]:
    """The settings in which cells of that kind differ."""
    own = [cell for cell in cells if type(cell) is kind]
    return [k for k in kind.settings if len({getattr(cell, k) for cell in own}) > 1]


def _varying_knobs(members: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, set[str]]:
    """name -> the knobs in which the members of that name differ."""
    first: dict[str, Mapping[str, Any]] = {}
    varying: dict[str, set[str]] = {}
    for name, knobs in members:
        reference = first.setdefault(name, knobs)
        varying.setdefault(name, set()).update(k for k in knobs if knobs[k] != reference[k])
    return varying


def _call(name: str, knobs: Mapping[str, Any], visible: set[str]) -> str:
    inner = ", ".join(f"{k}={v}" for k, v in knobs.items() if k in visible)
    return f"{name}({inner})" if inner else name
