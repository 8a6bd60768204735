"""What a run leaves behind: tables derived from the journal, in files that are whole or absent."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.files import write_frame, write_json
from gradest.measuring.parameters import SCALES
from gradest.measuring.result import Measurement
from gradest.properties import Row
from gradest.running.journal import Record, read_records
from gradest.running.nested import Nested
from gradest.training.pictures import Pictures, write_pictures
from gradest.training.tables import COLUMNS as TRAINING
from gradest.training.tables import rows as training_rows

# Names every row; the params are JSON with sorted keys.
IDENTITY = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "status", "reason"),
)
SIZE = ("batch", "latents", "categories", "coordinates")
PROTOCOL = ("replicates", "outcomes", "adapt_steps", "method", "precision")
REFERENCE = ("reference", "reference_by", "reference_se")
BIAS = (
    *("gradient_norm", "scale", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm"),
    *("relative_bias", "rounding", "bias_precision", "max_z", "p_value", "detectable_bias"),
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
COLUMNS = (*IDENTITY, *SIZE, *PROTOCOL, *REFERENCE, *BIAS, *VARIANCE, *VALUE, *ODD, *COST)
TEXT = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "dtype", "parameter"),
    *("status", "reason", "method", "reference", "reference_by", "precision", "verdict", "note"),
)

_RUN = ("suite", "parameters", "cells")  # what run.json must say for tables to be derived

COORDINATES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "point", "latent", "category", "mean", "exact", "standard_error", "variance"),
)


ADAPTATION = (*IDENTITY[:7], "step", "variance", "variance_low", "variance_high")


SOURCES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "source", "variance", "variance_low", "variance_high", "over", "values"),
)


def write_results(folder: Path, run: dict[str, Any]) -> None:
    """Derive run.json and every table from the journal in the folder.

    `run` describes the run; its "cells" name the rows, in order, and its "parameters" what they
    are with respect to.  Cells that the journal does not hold yet are left out.  Raises UsageError
    when `run` lacks any of this.
    """
    if missing := [key for key in _RUN if key not in run]:
        raise UsageError(f"{folder}: holds no readable run: run.json lacks {', '.join(missing)}")
    records = finished(folder / "journal.jsonl")
    rows, coordinates, adaptation, curves, looked_at = [], [], [], [], []
    images: dict[str, Pictures] = {}
    nested = Nested(run.get("nested") or ())
    for cell in run["cells"]:
        record = records.get(cell["key"])
        if record is None:
            continue
        if record["of"] == "training":
            curves.extend(training_rows(run["suite"], record))
            if record["status"] == "ok":
                images[record["key"]] = Pictures.from_json(record["training"]["pictures"])
            continue
        if record["of"] == "property":
            looked_at.extend(_property_rows(record))
            continue
        measurement = (
            Measurement.from_json(record["measurement"]) if record["status"] == "ok" else None
        )
        if measurement:
            names = _names(_identity(run["suite"], record, ""), ADAPTATION)
            adaptation.extend((*names, *look) for look in measurement.adaptation)
            nested.add(record["cell"], measurement)
        for parameter in run["parameters"]:
            if measurement and parameter not in measurement.parameters:
                continue
            identity = _identity(run["suite"], record, parameter)
            rows.append(identity | _measured(measurement, parameter, record.get("samples")))
            coordinates.extend(_coordinates(identity, measurement, parameter))
    frame = measurements_frame(rows)
    write_frame(folder / "measurements.parquet", frame)
    write_frame(folder / "measurements.csv", frame)
    write_frame(
        folder / "coordinates.parquet", pd.DataFrame(coordinates, columns=list(COORDINATES))
    )
    write_frame(folder / "adaptation.parquet", pd.DataFrame(adaptation, columns=list(ADAPTATION)))
    sources = pd.DataFrame(nested.rows(run["suite"]), columns=list(SOURCES))
    write_frame(folder / "sources.parquet", sources)
    if curves:
        frame = pd.DataFrame(curves, columns=list(TRAINING))
        write_frame(folder / "training.parquet", frame)
        write_frame(folder / "training.csv", frame)
        write_pictures(folder / "pictures.npz", images)
    if looked_at:
        write_frame(folder / "properties.parquet", pd.DataFrame(looked_at))
    write_json(folder / "run.json", run)


def _property_rows(record: Record) -> Iterator[dict[str, Any]]:
    """The rows of a property; a look that failed is a row that does not hold."""
    if record["status"] == "ok":
        yield from record["rows"]
        return
    cell = record["cell"]
    nan = float("nan")
    told = record["reason"]
    yield Row(cell["name"], cell["knobs"], "failed", nan, nan, nan, "=", nan, False, told).record()


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json of a folder.  Raises UsageError when there is none or it is damaged."""
    if not (folder / "run.json").exists():
        raise UsageError(f"{folder}: holds no readable run: {_lacking(folder)}")
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{folder}: holds no readable run: {error}") from None
    if not isinstance(run, dict):
        raise UsageError(f"{folder}: holds no readable run: run.json is no mapping")
    return run


def _lacking(folder: Path) -> str:
    """Why there is no run.json, and what would help."""
    if not folder.is_dir():
        return "there is no such folder"
    if (folder / "journal.jsonl").exists():
        return "run.json comes at its end; its finished cells are kept, run it again to go on"
    return "there is no run.json in it"


def finished(journal: Path) -> dict[str, Record]:
    """key -> the latest record of every cell, with its timing "samples" once it is timed."""
    cells: dict[str, Record] = {}
    samples: dict[str, list[float]] = {}
    for record in read_records(journal):
        if record["kind"] == "cell":
            cells[record["key"]] = record
        elif record["kind"] == "seconds":
            samples[record["key"]] = record["samples"]
    return {k: r | {"samples": samples[k]} if k in samples else r for k, r in cells.items()}


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
        "replicates": cell["replicates"],
    }


def _measured(
    measurement: Measurement | None, parameter: str, samples: Sequence[float] | None
) -> dict[str, Any]:
    if measurement is None:
        return {}
    row = measurement.row(parameter)
    if "variance" in row:
        row["work_variance"] = row["variance"] * row["evaluations"]
    if samples:
        row |= {
            "seconds": statistics.median(samples),
            "seconds_low": min(samples),
            "seconds_high": max(samples),
        }
    return row


def _coordinates(
    identity: dict[str, Any], measurement: Measurement | None, parameter: str
) -> Iterator[tuple[Any, ...]]:
    if measurement is None:
        return
    if parameter not in SCALES:  # its own coordinates are those of no tensor
        return
    names = _names(identity, COORDINATES)
    weight = measurement.weight(parameter)
    exact = measurement.exact
    columns = (
        measurement.mean * weight,
        weight * float("nan") if exact is None else exact * weight,
        measurement.standard_error * weight,
        measurement.variance * weight.square(),
    )
    places = (weight == weight).nonzero().tolist()
    for place, *numbers in zip(places, *(c.flatten().tolist() for c in columns), strict=True):
        yield (*names, *place, *numbers)


def _names(identity: Mapping[str, Any], columns: Sequence[str]) -> tuple[Any, ...]:
    """What a row of a further table begins with."""
    return tuple(identity[c] for c in columns if c in identity)


def measurements_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with every column, in order, text and numbers apart."""
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    numbers = [c for c in COLUMNS if c not in TEXT]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame.astype({c: "str" for c in TEXT}).where(frame.notna())
