"""Cells: one thing to do and to record each, as plain data that can travel to any worker."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from gradest.knobs import build
from gradest.measuring.measurement import measure
from gradest.measuring.precision import Precision
from gradest.measuring.schedule import FEWEST
from gradest.measuring.truth import Reference
from gradest.registry import Registry
from gradest.training.course import trained
from gradest.training.settings import TrainingSettings
from gradest.training.trainer import Trainer

Payload = dict[str, Any]


@dataclass(frozen=True)
class Keyed:
    """Plain data with a key: everything that determines the numbers."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of it all."""
        return hashlib.sha256(self._identity.encode()).hexdigest()

    @property
    def _identity(self) -> str:
        return canonical(asdict(self))

    @property
    def draw_seed(self) -> int:
        """Depends on the cell alone, so that it gives the same numbers in any company."""
        return int(hashlib.sha256(f"draws {self.key}".encode()).hexdigest()[:15], 16)


class Cell(Keyed, ABC):
    """What a suite is made of."""

    kind: ClassVar[str]  # of what is recorded
    settings: ClassVar[tuple[str, ...]] = ("seed",)  # fields that tell cells apart, beside members

    @property
    @abstractmethod
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The names, with their knobs, that the cell brings together."""

    @abstractmethod
    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        """What is recorded.  Raises Inapplicable where there is nothing to do."""


@dataclass(frozen=True)
class EstimatorCell(Cell):
    """An estimator on a task."""

    task: str
    task_knobs: Mapping[str, Any]
    estimator: str
    estimator_knobs: Mapping[str, Any]
    seed: int

    @property
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        return (self.task, self.task_knobs), (self.estimator, self.estimator_knobs)


@dataclass(frozen=True)
class MeasuringCell(EstimatorCell):
    """One measurement."""

    kind: ClassVar[str] = "measurement"
    settings: ClassVar[tuple[str, ...]] = ("seed", "replicates", "dtype")

    replicates: int | None  # None where a precision is asked for
    precision: Mapping[str, Any] | None
    enumerate_draws: bool | None
    adapt_steps: int
    dtype: str
    tolerant: bool
    device: str
    sources: Mapping[str, str]  # what the numbers were computed by

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        measurement = measure(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            replicates=self.replicates or FEWEST,
            precision=None if self.precision is None else Precision(**self.precision),
            enumerate_draws=self.enumerate_draws,
            tolerant=self.tolerant,
            seed=self.draw_seed,
            adapt_steps=self.adapt_steps,
            dtype=getattr(torch, self.dtype),
            device=self.device,
            reference=reference,
        )
        return {"measurement": measurement.to_json()}


@dataclass(frozen=True)
class TrainingCell(EstimatorCell):
    """One training."""

    kind: ClassVar[str] = "training"
    settings: ClassVar[tuple[str, ...]] = ("learning_rate", "seed")

    learning_rate: float
    training: Mapping[str, Any]
    device: str
    sources: Mapping[str, str]

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        settings = TrainingSettings.model_validate(self.training)
        checkpoint = folder / "checkpoints" / f"{self.key}.pt"
        points, pictures = trained(self.trainer(registry), settings, self.draw_seed, checkpoint)
        return {"training": {"points": [list(p) for p in points], "pictures": pictures.to_json()}}

    def trainer(self, registry: Registry) -> Trainer:
        """At its first step.  Raises Inapplicable."""
        settings = TrainingSettings.model_validate(self.training)
        return Trainer(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            learning_rate=self.learning_rate,
            batch=settings.batch,
            seed=self.seed,
            anneal=settings.anneal,
            dtype=getattr(torch, settings.dtype),
            device=self.device,
        )


def labels(cells: Sequence[Cell]) -> dict[str, str]:
    """key -> a short name for each cell, with the knobs in which these cells differ."""
    varying = _varying([member for cell in cells for member in cell.members])
    return {
        cell.key: " ".join(
            [
                " × ".join(_call(name, knobs, varying[name]) for name, knobs in cell.members),
                *(f"{k}={getattr(cell, k)}" for k in _telling(cells, type(cell))),
            ]
        )
        for cell in cells
    }


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
