"""The tables of a run, derived from its journal and written atomically."""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.measurement import SCALES, Measurement
from gradest.runs.cells import same_cell
from gradest.runs.folder import alone_in
from gradest.runs.journal import Contents, Record, read_journal
from gradest.runs.nested import Nested
from gradest.runs.property_cell import PropertyCell
from gradest.runs.records import problem
from gradest.runs.training import COLUMNS as TRAINING
from gradest.runs.training import Pictures, write_pictures
from gradest.runs.training import rows as training_rows
from gradest.support import (
    checksum,
    counted,
    described,
    in_a_line,
    printable,
    replacing,
    shortened,
    write_frame,
    write_json,
)

# The columns that identify a row; the params are JSON with sorted keys.
IDENTITY = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "status", "reason"),
)
VERSIONS = ("task_version", "estimator_version")
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
)
TEXT = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "dtype", "parameter"),
    *("status", "reason", "method", "reference", "reference_by", "precision", "verdict", "note"),
)

_RUN = ("suite", "parameters", "cells")  # keys of run.json from which the tables are derived
_DERIVED = ("journal", "recorded", "damage", "checksum")  # keys that are derived with the tables
_OPTIONAL = ("training.parquet", "training.csv", "pictures.npz", "properties.parquet")

COORDINATES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "point", "latent", "category", "mean", "exact", "standard_error", "variance"),
)


ADAPTATION = (*IDENTITY[:7], "step", "variance", "variance_low", "variance_high")


SOURCES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "source", "variance", "variance_low", "variance_high", "over", "values"),
)


def write_results(folder: Path, run: Mapping[str, Any]) -> list[str]:
    """Derive run.json and every table from the journal in the folder, all or none.

    `run` is the content of run.json; its "cells" define the rows and their order, its "parameters"
    what the gradients are with respect to.  Cells that were never measured are left out.  Returns
    warnings about the journal.  Raises UsageError if `run` lacks one of these keys.
    """
    with alone_in(folder), replacing(folder, stale) as staged:
        return derive(folder, run, staged)


def stale(new: Set[Path]) -> list[Path]:
    """The optional tables that this run does not have."""
    return [Path(name) for name in _OPTIONAL if Path(name) not in new]


def derive(folder: Path, run: Mapping[str, Any], out: Path) -> list[str]:
    """Write the files of `write_results` into `out`; `folder` is only read."""
    if missing := [key for key in _RUN if key not in run]:
        raise UsageError(f"{folder}: holds no readable run: run.json lacks {', '.join(missing)}")
    journal = read_journal(folder / "journal.jsonl")
    records = latest(journal.records)
    lost = _lost(run, records)
    tables = _Tables(run)
    recorded, unreadable = [], []
    for cell in run["cells"]:
        record = records.get(cell["key"]) or (_missing(cell, journal) if cell in lost else None)
        if record is None:
            continue
        recorded.append(record["key"])
        if not same_cell(record["cell"], cell):
            reason = "its record describes another cell"
            tables.add(_failed(record | {"cell": cell}, reason))
            unreadable.append(f"{journal.path.name}: {_label(record)}: {reason}")
        elif reason := tables.add(record):
            unreadable.append(f"{journal.path.name}: {_label(record)}: {reason}")
    damage = [*journal.told, *unreadable]
    if lost and not journal.damage:
        damage.append(f"{journal.path.name} lacks {counted(len(lost), 'cell')} of this run")
    tables.write(out)
    content = {key: value for key, value in run.items() if key not in _DERIVED}
    content |= {"journal": (journal.header or {}).get("id"), "recorded": recorded}
    content |= {"damage": damage} if damage else {}
    write_json(out / "run.json", content | {"checksum": checksum(content)})
    return [*damage, *tables.warnings]


class _Tables:
    """The rows of all tables; a cell that cannot be decoded does not affect the others."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._suite, self._parameters = run["suite"], run["parameters"]
        self._rows: list[dict[str, Any]] = []
        self._coordinates: list[tuple[Any, ...]] = []
        self._adaptation: list[tuple[Any, ...]] = []
        self._curves: list[tuple[Any, ...]] = []
        self._properties: list[dict[str, Any]] = []
        self._images: dict[str, Pictures] = {}
        self._nested = Nested(run.get("nested") or ())
        self.warnings: list[str] = []  # a message for each row that could not be computed

    def add(self, record: Record) -> str:
        """Add a cell; if its payload cannot be read, add a failed cell and return the reason."""
        record = record | {"reason": record["reason"] and printable(record["reason"])}
        kinds = {"training": self._training, "property": self._property}
        add = kinds.get(record["of"], self._measurement)
        try:
            add(record)
        except Exception as error:  # an invalid payload may cause any error
            reason = f"its record cannot be read ({described(error)})"
            add(_failed(record, reason))
            return reason
        return ""

    def _training(self, record: Record) -> None:
        if record["status"] == "ok":
            self._images[record["key"]] = Pictures.from_json(record["training"]["pictures"])
        self._curves.extend(list(training_rows(self._suite, record)))

    def _property(self, record: Record) -> None:
        self._properties.extend(list(PropertyCell.rows(record)))

    def _measurement(self, record: Record) -> None:
        measurement = None
        if record["status"] == "ok":
            measurement = _validated(Measurement.from_json(record["measurement"]))
            identity = _identity_values(_identity(self._suite, record, ""), ADAPTATION)
            adaptation = [(*identity, *values) for values in measurement.adaptation]
            self._adaptation.extend(adaptation)
        before = len(self.warnings)
        for parameter in self._parameters:
            if measurement is None or parameter in measurement.parameters:
                self._parameter(record, measurement, parameter)
        if measurement is not None and before == len(self.warnings):
            self._nested.add(record["cell"], measurement)

    def _parameter(self, record: Record, measurement: Measurement | None, parameter: str) -> None:
        """Add a row; if it cannot be computed, a failed row with the reason."""
        identity = _identity(self._suite, record, parameter)
        try:
            row = _quantities(measurement, parameter, record.get("samples"))
            coordinates = list(_coordinates(identity, measurement, parameter))
        except Exception as error:  # arithmetic with unusual numbers may raise any error
            reason = f"its moments cannot be evaluated: {described(error)}"
            self._rows.append(identity | {"status": "failed", "reason": reason})
            self.warnings.append(f"{_label(record)} in {parameter}: {reason}")
            return
        self._rows.append(identity | row)
        self._coordinates.extend(coordinates)

    def write(self, out: Path) -> None:
        frame = measurements_frame(self._rows)
        write_frame(out / "measurements.parquet", frame)
        write_frame(out / "measurements.csv", frame)
        sources = list(self._nested.rows(self._suite))
        for name, rows, columns in (
            ("coordinates", self._coordinates, COORDINATES),
            ("adaptation", self._adaptation, ADAPTATION),
            ("sources", sources, SOURCES),
        ):
            write_frame(out / f"{name}.parquet", pd.DataFrame(rows, columns=list(columns)))
        if self._curves:
            frame = pd.DataFrame(self._curves, columns=list(TRAINING))
            write_frame(out / "training.parquet", frame)
            write_frame(out / "training.csv", frame)
            write_pictures(out / "pictures.npz", self._images)
        if self._properties:
            write_frame(out / "properties.parquet", pd.DataFrame(self._properties))


def _validated(measurement: Measurement) -> Measurement:
    """The measurement.  Raises ValueError if the shapes of its tensors contradict each other."""
    size = measurement.logits.numel()
    if measurement.logits.ndim != 3 or measurement.gradient.mean.shape[1:] != (size,):
        raise ValueError("expected a gradient coordinate for each logit")
    for moments in (*measurement.gradients.values(), measurement.objective, measurement.cosines):
        if moments.mean.shape != moments.m2.shape or moments.mean.shape[:1] != moments.count.shape:
            raise ValueError("expected moments of equal shapes")
    return measurement


def _lost(run: Mapping[str, Any], records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The cells that the tables of this run contained and that the journal has lost."""
    recorded = set(run.get("recorded") or ()) - set(records)
    return [cell for cell in run["cells"] if cell["key"] in recorded]


def _missing(cell: Mapping[str, Any], journal: Contents) -> Record | None:
    """A substitute for the record of a cell that the journal has lost; None if it is unknown."""
    record = {"kind": "cell", "of": _kind(cell), "key": cell["key"], "cell": cell}
    record |= {"status": "failed", "reason": ""}
    if problem(record):  # run.json does not describe it well enough for a row
        return None
    line = next((f" (line {each.line}: {each.reason})" for each in journal.damage), "")
    return _failed(record, f"its record is lost since {journal.path.name} is damaged{line}")


def _kind(cell: Mapping[str, Any]) -> str:
    if "estimator" not in cell:
        return "property"
    return "training" if "learning_rate" in cell else "measurement"


def _failed(record: Record, reason: str) -> Record:
    identity = {key: record[key] for key in ("kind", "of", "key", "cell")}
    return {
        **identity,
        "status": "failed",
        "reason": f"{reason}; run the suite again to measure it",
    }


def _label(record: Record) -> str:
    cell = record["cell"]
    return " × ".join(str(cell[name]) for name in ("task", "estimator", "name") if name in cell)


def carried(folder: Path) -> dict[str, Any]:
    """The recorded cells in a run.json of the same journal, some of which may be lost by now."""
    try:
        run = read_run(folder)
    except UsageError:  # a missing or unreadable file is replaced
        return {}
    header = read_journal(folder / "journal.jsonl").header or {}
    return {"recorded": run.get("recorded")} if run.get("journal") == header.get("id") else {}


def read_run(folder: Path) -> dict[str, Any]:
    """The content of run.json.  Raises UsageError if the file is missing or damaged."""
    path = folder / "run.json"
    if not path.exists():
        raise UsageError(f"{folder}: holds no readable run: {_why_missing(folder)}")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = in_a_line(str(error))
        raise UsageError(f"{folder}: holds no readable run: run.json: {reason}") from None
    if not isinstance(run, dict):
        raise UsageError(f"{folder}: holds no readable run: run.json is not a mapping")
    if "checksum" in run and run["checksum"] != checksum(_without(run, "checksum")):
        raise UsageError(
            f"{folder}: holds no readable run: run.json is damaged, its checksum does not match; "
            "run the suite again to rewrite it, finished cells are kept"
        )
    for key, (is_valid, expected) in _CHECKED.items():
        if run.get(key) is not None and not is_valid(run[key]):
            raise UsageError(
                f"{folder}: holds no readable run: run.json: expected {key!r} to be {expected}, "
                f"got {shortened(run[key])}"
            )
    return run


def _without(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != name}


def _is_list_of_cells(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(cell, dict) and isinstance(cell.get("key"), str) for cell in value
    )


def _is_list_of_str(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_controls(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_list_of_str, value.values()))


_CHECKED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "suite": (lambda value: isinstance(value, str), "a name"),
    "parameters": (_is_list_of_str, "a list of names"),
    "cells": (_is_list_of_cells, "a list of cells with keys"),
    "nested": (_is_list_of_str, "a list of names"),
    "controls": (_is_controls, "a mapping of lists of names"),
    "recorded": (_is_list_of_str, "a list of keys"),
    "damage": (_is_list_of_str, "a list of lines"),
}


def _why_missing(folder: Path) -> str:
    """The reason why run.json is missing, and what to do."""
    if not folder.is_dir():
        return "the folder does not exist"
    if (folder / "journal.jsonl").exists():
        return "the run has not ended, so that run.json is missing; run the suite again to resume"
    return "the folder contains no run.json"


def finished(journal: Path) -> dict[str, Record]:
    """key -> the latest valid record of every cell, with its "samples" if it has been timed."""
    return latest(read_journal(journal).records)


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """The result of `finished` for records in the order in which they were written."""
    cells: dict[str, Record] = {}
    samples: dict[str, list[float]] = {}
    for record in records:
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
    if parameter not in SCALES:  # the coordinates of other parameters have no latent and category
        return
    values = _identity_values(identity, COORDINATES)
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
        yield (*values, *place, *numbers)


def _identity_values(identity: Mapping[str, Any], columns: Sequence[str]) -> tuple[Any, ...]:
    """The first values of a row in a table with these columns."""
    return tuple(identity[c] for c in columns if c in identity)


def measurements_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame with all COLUMNS, in order, and text or numeric types."""
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    numbers = [c for c in COLUMNS if c not in TEXT]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame.astype({c: "str" for c in TEXT}).where(frame.notna())
