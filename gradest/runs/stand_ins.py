"""Rows of another run that stand in a report for cells that were not measured.

A row of reference results, or of another run, stands in where it says what this run would have
measured: on the same task with the same knobs and versions, by the same protocol.  Seeds may
differ, since rankings take rows as independent.  The rows are kept in the folder of the run, so
that its report can be rebuilt without the run that they are from.
"""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradest.contracts import Estimator
from gradest.errors import UsageError
from gradest.knobs import build
from gradest.plugins import Registry
from gradest.runs.cells import Cell, canonical, labels
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.measurement_tables import CELL, STAND_INS, measurements_frame
from gradest.runs.provenance import cpu_model
from gradest.runs.reference_results import Baseline
from gradest.runs.suite import Suite, measuring_cells
from gradest.runs.tables import finished, read_run
from gradest.support import counted, in_a_line, listed, write_frame

Identity = tuple[str, ...]  # the values of CELL

_FACTS = ("commit", "finished", "versions", "machine")  # of the other run, which a report gives
# Field of a cell that keeps a row from standing in -> how messages call it.
_PROTOCOL = {
    "task_version": "version of the task",
    "estimator_version": "version of the estimator",
    "replicates": "replicates",
    "precision": "precision",
    "enumerate_draws": "enumerate_draws",
    "adapt_steps": "adapt_steps",
    "tolerant": "whether non-finite estimates are counted",
    "device": "device",
}
_TIMES = ("seconds", "seconds_low", "seconds_high")
_NAMED = 3  # cells in a line


class StandIns(NamedTuple):
    """Rows for cells that a run does not measure, and the cells for which there are none."""

    rows: pd.DataFrame  # of measurements; `origin` says where they are from
    facts: dict[str, Any]  # of run.json: where they are from, what is lacking, and how to get it

    @property
    def summary(self) -> str:
        """How many cells there are."""
        measured = self.rows[self.rows["status"].eq("ok")]
        cells = counted(len(measured.drop_duplicates([*CELL, "seed"])), "cell")
        return f"beside {self.facts['name']}: {cells} of it, not measured again"

    @property
    def lacking(self) -> list[str]:
        """A line for each reason why cells are lacking, then the command that measures them."""
        lines = []
        reasons: dict[str, list[str]] = defaultdict(list)
        for label, reason in self.facts["lacking"]:
            reasons[reason].append(label)
        for reason, names in reasons.items():
            lines.append(f"not ranked: {listed(names, _NAMED)}: {reason}")
        if self.facts["command"]:
            lines.append(f"to measure them: {self.facts['command']}")
        return lines


def find_stand_ins(
    suite: Suite,
    measured: Sequence[Cell],
    registry: Registry,
    baseline: Baseline,
    command: Sequence[str],
) -> StandIns:
    """The rows of `baseline` for the estimators, of it and of the suite, that `measured` lacks.

    They are on the tasks of `measured`.  The command that measures what is lacking is `command`
    and the names of the estimators.
    Raises UsageError if the other run cannot be read, or one of both has no measurements.
    """
    run = read_run(baseline.folder)
    recorded = _recorded(baseline.folder, run)
    own = [cell for cell in measured if isinstance(cell, MeasuringCell)]
    for cells, name in ((recorded, baseline.name), (own, suite.name)):
        if not cells:
            raise UsageError(f"--beside: expected measurements, but {name} has none")
    estimators, lacking = _estimators([*(cell.plain for cell in suite.cells), *recorded], registry)
    expected = measuring_cells(suite, own, estimators, registry)
    known = defaultdict(list)
    for cell in recorded:
        known[_identity(cell)].append(cell)
    taken = {_identity(cell.plain) for cell in own}
    rows, names = _rows_of(baseline.folder), labels([*expected, *own])
    chosen, absent = [], []
    for cell in expected:
        identity = _identity(cell.plain)
        if identity in taken:
            continue
        part, reason = _matching(cell, known[identity], rows.get(identity))
        chosen.append(part)
        if reason:
            lacking.append((names[cell.key], reason))
            absent.append(cell.estimator)
        taken.add(identity)  # the same for every seed
    frame = pd.concat(chosen) if chosen else measurements_frame([])
    frame = frame[frame["parameter"].isin(suite.settings.parameters)]
    if cpu_model() != (run.get("machine") or {}).get("cpu"):
        frame = frame.assign(**dict.fromkeys(_TIMES, float("nan")))
    again = [*command, *(name for name in dict.fromkeys(absent) if name not in command)]
    facts = {name: run.get(name) for name in _FACTS}
    facts |= {"name": baseline.name, "lacking": lacking}
    facts |= {"command": in_a_line(shlex.join(again)) if absent else ""}
    return StandIns(frame.assign(suite=suite.name, origin=baseline.name), facts)


def keep_stand_ins(folder: Path, found: StandIns | None) -> dict[str, Any]:
    """Write the rows into the folder of the run, or remove those of an earlier one.

    Returns what run.json says of them.
    """
    if found is None:
        (folder / STAND_INS).unlink(missing_ok=True)
        return {}
    write_frame(folder / STAND_INS, found.rows)
    return {"beside": found.facts}


def _recorded(folder: Path, run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cells of the measurements that a run has, as its journal describes them."""
    records = finished(folder / "journal.jsonl")
    named = [cell["key"] for cell in run.get("cells") or ()]
    kept = [records[key] for key in named if key in records]
    return [record["cell"] for record in kept if record["of"] == MeasuringCell.kind]


def _estimators(
    cells: Sequence[Mapping[str, Any]], registry: Registry
) -> tuple[list[Estimator], list[tuple[str, str]]]:
    """The estimators of the cells, and the names of those that do not exist here, with reasons."""
    named = {
        (cell["estimator"], _json(cell["estimator_knobs"])): cell["estimator_knobs"]
        for cell in cells
        if "estimator_knobs" in cell
    }
    estimators, gone = [], []
    for (name, _), knobs in named.items():
        try:
            estimators.append(build(registry.estimator(name), knobs))
        except UsageError as error:
            gone.append((name, f"it cannot be made here: {in_a_line(str(error))}"))
    return estimators, gone


def _json(knobs: Mapping[str, Any]) -> str:
    return json.dumps(knobs, sort_keys=True)  # as the params of rows are written


def _identity(cell: Mapping[str, Any]) -> Identity:
    task, estimator = (_json(cell[f"{kind}_knobs"]) for kind in ("task", "estimator"))
    return cell["task"], task, cell["estimator"], estimator, cell["dtype"]


def _rows_of(folder: Path) -> dict[Identity, pd.DataFrame]:
    """The measurements of a run, by cell.  Raises UsageError if they cannot be read."""
    try:
        frame = pd.read_parquet(folder / "measurements.parquet")
        return dict(iter(frame.groupby(list(CELL), sort=False)))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: holds no readable run: {in_a_line(str(error))}") from None


def _matching(
    cell: MeasuringCell, recorded: Sequence[Mapping[str, Any]], rows: pd.DataFrame | None
) -> tuple[pd.DataFrame, str]:
    """The rows of recorded cells that measured the same, or none and the reason."""
    fields, parts = cell.plain, []
    reason = "not in it"
    for other in recorded if rows is not None else ():
        differ = [n for n in _PROTOCOL if canonical(other.get(n)) != canonical(fields[n])]
        if differ:
            there, here = (_text(each.get(differ[0])) for each in (other, fields))
            reason = f"{_PROTOCOL[differ[0]]} is {there} in it and {here} here"
            continue
        part = rows[rows["seed"].eq(other["seed"])]
        if other["replicates"] is not None:  # several numbers of them may have been measured
            counted_alike = part["replicates"].eq(other["replicates"])
            part = part[counted_alike | part["method"].ne("monte_carlo")]
        usable = part["status"].isin(("ok", "skipped"))
        parts.append(part[usable])
        if not usable.any():
            reason = "it failed there"
    parts = [part for part in parts if not part.empty]
    return (pd.concat(parts), "") if parts else (measurements_frame([]), reason)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ",".join(f"{k}={v}" for k, v in sorted(value.items()) if v is not None)
    return "none" if value is None else in_a_line(str(value))
