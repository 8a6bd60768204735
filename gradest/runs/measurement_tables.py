"""The tables of measurements: a row for each gradient, its coordinates, and how it adapted."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gradest.measurement import SCALES, Measurement
from gradest.runs.cells import CellTables, label_of
from gradest.runs.coordinates import CoordinatesWriter
from gradest.runs.journal import Record
from gradest.runs.nested import Nested
from gradest.statistics import columns_of
from gradest.support import described, write_frame

# The columns that identify a row; the params are JSON with sorted keys.
IDENTITY = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "status", "reason"),
)
STAND_INS = "beside.parquet"  # rows of another run that stand in for cells not measured here
ORIGIN = "origin"  # the column that names that run; empty in rows that were measured here
VERSIONS = ("task_version", "estimator_version")
SIZE = ("batch", "latents", "categories", "coordinates")
PROTOCOL = ("replicates", "outcomes", "adapt_steps", "method", "precision")
REFERENCE = ("reference", "reference_by", "reference_se")
BIAS = (
    *("gradient_norm", "scale", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm"),
    *("relative_bias", "rounding", "bias_precision", "max_z", "p_value", "detectable_bias"),
    *columns_of("best_scale"),
    *columns_of("relative_bias_rescaled"),
    *("verdict", "note"),
)
VARIANCE = (
    *("variance", "variance_low", "variance_high", "variance_precision", "mse", "snr", "cosine"),
    "cosine_se",
)
VALUE = ("value", "value_se", "exact_value")
ODD = ("zero", "nonfinite", "overflow", "drift", "drift_se")
COST = (
    *("evaluations", "gradient_evaluations", "memory", "seconds", "seconds_low", "seconds_high"),
    "work_variance",
)
COLUMNS = (
    *IDENTITY,
    *SIZE,
    *PROTOCOL,
    *REFERENCE,
    *BIAS,
    *VARIANCE,
    *VALUE,
    *ODD,
    *COST,
    *VERSIONS,
    ORIGIN,
)
TEXT = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "dtype", "parameter"),
    *("status", "reason", "method", "reference", "reference_by", "precision", "verdict", "note"),
    ORIGIN,
)
CELL = ("task", "task_params", "estimator", "estimator_params", "dtype")  # but for its seed
COORDINATES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "point", "latent", "category", "mean", "exact", "standard_error", "variance"),
)

ADAPTATION = (*IDENTITY[:7], "step", "variance", "variance_low", "variance_high")

SOURCES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "source", "variance", "variance_low", "variance_high", "over", "values"),
)


class MeasurementTables(CellTables):
    """The tables of measurements, which every run has."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        super().__init__(run)
        self._parameters = run["parameters"]
        self._rows: list[dict[str, Any]] = []
        self._adaptation: list[tuple[Any, ...]] = []
        self._nested = Nested(run.get("nested") or ())
        self._coordinates: CoordinatesWriter

    def begin(self, out: Path) -> None:
        self._coordinates = CoordinatesWriter(out / "coordinates.parquet", COORDINATES)

    def add(self, record: Record) -> None:
        measurement = None
        if record["status"] == "ok":
            measurement = _validated(Measurement.from_json(record["measurement"]))
            identity = _identity_values(_identity(self.suite, record, ""), ADAPTATION)
            adaptation = [(*identity, *values) for values in measurement.adaptation]
            self._adaptation.extend(adaptation)
        before = len(self.warnings)
        coordinates = None if measurement is None else _Coordinates(measurement)
        for parameter in self._parameters:
            if measurement is None or parameter in measurement.parameters:
                self._parameter(record, measurement, parameter, coordinates)
        if measurement is not None and before == len(self.warnings):
            self._nested.add(record["cell"], measurement)

    def _parameter(
        self,
        record: Record,
        measurement: Measurement | None,
        parameter: str,
        coordinates: "_Coordinates | None",
    ) -> None:
        """Add a row; if it cannot be computed, a failed row with the reason."""
        identity = _identity(self.suite, record, parameter)
        try:
            row = _quantities(measurement, parameter, record.get("samples"))
            columns = coordinates and coordinates.columns(identity, parameter)
        except Exception as error:  # arithmetic with unusual numbers may raise any error
            reason = f"its moments cannot be evaluated: {described(error)}"
            self._rows.append(identity | {"status": "failed", "reason": reason})
            self.warnings.append(f"{label_of(record)} in {parameter}: {reason}")
            return
        self._rows.append(identity | row)
        if columns:
            self._coordinates.add(columns)

    def stand_in(self, rows: pd.DataFrame) -> None:
        """Add rows of another run for cells that have none, at any seed, when all were added."""
        own = {tuple(row[name] for name in CELL) for row in self._rows}
        others = rows.to_dict("records")
        self._rows += [row for row in others if tuple(row[name] for name in CELL) not in own]

    def write(self, out: Path) -> None:
        frame = measurements_frame(self._rows)
        write_frame(out / "measurements.parquet", frame)
        write_frame(out / "measurements.csv", frame)
        sources = list(self._nested.rows(self.suite))
        self._coordinates.close()
        for name, rows, columns in (
            ("adaptation", self._adaptation, ADAPTATION),
            ("sources", sources, SOURCES),
        ):
            write_frame(out / f"{name}.parquet", pd.DataFrame(rows, columns=list(columns)))


def _validated(measurement: Measurement) -> Measurement:
    """The measurement.  Raises ValueError if the shapes of its tensors contradict each other."""
    size = measurement.logits.numel()
    if measurement.logits.ndim != 3 or measurement.gradient.mean.shape[1:] != (size,):
        raise ValueError("expected a gradient coordinate for each logit")
    for moments in (*measurement.gradients.values(), measurement.objective, measurement.cosines):
        if moments.mean.shape != moments.m2.shape or moments.mean.shape[:1] != moments.count.shape:
            raise ValueError("expected moments of equal shapes")
    return measurement


def _identity(suite: str, record: Record, parameter: str) -> dict[str, Any]:
    cell = record["cell"]
    return {
        "suite": suite,
        "task": cell["task"],
        "task_params": json.dumps(cell["task_knobs"], sort_keys=True),
        "estimator": cell["estimator"],
        "estimator_params": json.dumps(cell["estimator_knobs"], sort_keys=True),
        "seed": cell["seed"],
        "dtype": cell["dtype"],
        "parameter": parameter,
        "status": record["status"],
        "reason": record["reason"],
        "replicates": cell.get("replicates"),
        # Records without versions were written for version 1.
        **{name: cell.get(name, 1) for name in VERSIONS},
    }


def _quantities(
    measurement: Measurement | None, parameter: str, samples: Sequence[float] | None
) -> dict[str, Any]:
    if measurement is None:
        return {}
    row = measurement.row(parameter)
    if samples:
        row |= {
            "seconds": statistics.median(samples),
            "seconds_low": min(samples),
            "seconds_high": max(samples),
        }
    return row


class _Coordinates:
    """The coordinates of a measurement, each computed once for all parameters."""

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement

    def columns(self, identity: Mapping[str, Any], parameter: str) -> dict[str, Any]:
        """Arrays, or a value that is the same in all rows; none for other parameters than SCALES.

        These have no latent and category.
        """
        if parameter not in SCALES:
            return {}
        weight = self._measurement.weight(parameter)
        places = np.indices(weight.shape).reshape(3, -1)
        mean, exact, error, variance = self._unscaled
        numbers = {
            "mean": mean * weight,
            "exact": weight * math.nan if exact is None else exact * weight,
            "standard_error": error * weight,
            "variance": variance * weight.square(),
        }
        return {
            **{name: identity[name] for name in COORDINATES if name in identity},
            **dict(zip(("point", "latent", "category"), places, strict=True)),
            **{name: values.flatten().numpy() for name, values in numbers.items()},
        }

    @cached_property
    def _unscaled(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        own = self._measurement
        return own.mean, own.exact, own.standard_error, own.variance


def _identity_values(identity: Mapping[str, Any], columns: Sequence[str]) -> tuple[Any, ...]:
    """The first values of a row in a table with these columns."""
    return tuple(identity[c] for c in columns if c in identity)


def measurements_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame with all COLUMNS, in order, and text or numeric types."""
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    numbers = [c for c in COLUMNS if c not in TEXT]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame.astype({c: "str" for c in TEXT}).where(frame.notna())
