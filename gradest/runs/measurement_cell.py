"""Cells that measure the gradients of an estimator."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from gradest.knobs import build
from gradest.measurement import (
    Precision,
    Reference,
    Replicator,
    exact_truth,
    measure,
    plan_replicates,
)
from gradest.plugins import Registry
from gradest.runs.cells import CellTables, EstimatorCell, Payload
from gradest.runs.estimate_runtime import expected_seconds
from gradest.runs.measurement_tables import MeasurementTables


@dataclass(frozen=True)
class MeasuringCell(EstimatorCell):
    """A measurement of an estimator on a task."""

    kind: ClassVar[str] = "measurement"
    tables: ClassVar[type[CellTables]] = MeasurementTables
    settings: ClassVar[tuple[str, ...]] = ("seed", "replicates", "dtype")

    seed: int
    replicates: int | None  # None if `precision` determines the number
    precision: Mapping[str, Any] | None
    enumerate_draws: bool | None
    adapt_steps: int
    dtype: str
    tolerant: bool
    device: str

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        measurement = measure(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            replicates=self.replicates,
            precision=None if self.precision is None else Precision(**self.precision),
            enumerate_draws=self.enumerate_draws,
            tolerant=self.tolerant,
            seed=self.draw_seed,
            adapt_steps=self.adapt_steps,
            dtype=getattr(torch, self.dtype),
            device=self.device,
            reference=reference,
            progress=False,
        )
        return {"measurement": measurement.to_json()}

    @classmethod
    def without_times(cls, payload: Payload) -> Payload:
        return {"measurement": {**payload["measurement"], "seconds": None}}

    def expected_seconds(self, registry: Registry) -> float:
        return expected_seconds(
            lambda: self.replicator(registry),
            self.adapt_steps,
            self._replicates,
            self.device,
            listed=self.enumerate_draws is not False,
            tolerant=self.tolerant,
        )

    def replicator(self, registry: Registry) -> Replicator:
        """The estimator on the task.  Raises Inapplicable if it does not apply."""
        return Replicator(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            getattr(torch, self.dtype),
            self.device,
        )

    def _replicates(self, replicator: Replicator, chunk: int) -> int:
        if self.precision is None:
            return self.replicates
        return plan_replicates(
            Precision(**self.precision), replicator, chunk, exact_truth(replicator, {})
        )
