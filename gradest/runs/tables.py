"""The tables of a run, derived from its journal and written atomically."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.runs.cells import label_of, name_of, same_cell
from gradest.runs.descent_cell import DescentCell
from gradest.runs.folder import alone_in
from gradest.runs.journal import Contents, Record, read_header, read_journal
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.measurement_tables import STAND_INS, MeasurementTables
from gradest.runs.omission import Omission
from gradest.runs.property_cell import PropertyCell
from gradest.runs.records import kind_of
from gradest.runs.search_cell import SearchCell
from gradest.runs.training_cell import TrainingCell
from gradest.support import (
    checksum,
    counted,
    described,
    in_a_line,
    printable,
    replacing,
    shortened,
    write_json,
)

_RUN = ("suite", "parameters", "cells")  # keys of run.json from which the tables are derived
# Keys that are derived with the tables.
DERIVED = ("journal", "recorded", "unlisted", "left_out", "damage", "checksum")
_CARRIED = ("recorded", "sources", "notes")  # keys that the next run into a folder keeps
_CELLS = (MeasuringCell, TrainingCell, DescentCell, PropertyCell, SearchCell)
CLASSES = {cls.kind: cls for cls in _CELLS}  # kind of a record -> its cell


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
    names = (Path(name) for cls in _CELLS for name in cls.tables.optional)
    return [name for name in names if name not in new]


def derive(
    folder: Path, run: Mapping[str, Any], out: Path, omission: Omission | None = None
) -> list[str]:
    """Write the files of `write_results` into `out`; `folder` is only read.

    The cells of `omission` are in no table; run.json lists them all the same, so that the next call
    has them again.
    """
    omission = omission or Omission()
    if missing := [key for key in _RUN if key not in run]:
        raise UsageError(f"{folder}: holds no readable run: run.json lacks {', '.join(missing)}")
    journal = read_journal(folder / "journal.jsonl", verify=False)  # `add` reads every block
    records = latest(journal.records)
    lost = _lost(run, records)
    tables = _Tables(run, out)
    recorded, unreadable = [], []
    for cell in run["cells"]:
        record = records.get(cell["key"])
        if record is None and cell["key"] in lost:
            record = _missing(cell, journal)
        if record is None:
            continue
        recorded.append(record["key"])
        if omission.covers(cell):
            continue
        if not same_cell(record["cell"], cell):
            reason = "its record describes another cell"
            tables.add(_failed(record | {"cell": cell}, reason))
            unreadable.append(f"{journal.path.name}: {label_of(record)}: {reason}")
        elif reason := tables.add(record):
            unreadable.append(f"{journal.path.name}: {label_of(record)}: {reason}")
    damage = [*journal.told, *unreadable]
    if lost and not journal.damage:
        damage.append(f"{journal.path.name} lacks {counted(len(lost), 'cell')} of this run")
    tables.stand_in(folder / STAND_INS, omission)
    tables.write(out)
    content = {key: value for key, value in run.items() if key not in DERIVED}
    content |= {"journal": (journal.header or {}).get("id"), "recorded": recorded}
    content |= {"left_out": omission.to_json()} if omission else {}
    unlisted = _unlisted(run["cells"], records)
    content |= {"unlisted": unlisted} if unlisted else {}
    content |= {"damage": damage} if damage else {}
    write_json(out / "run.json", content | {"checksum": checksum(content)})
    return [*damage, *tables.warnings]


class _Tables:
    """The tables of every kind of cell; a cell that cannot be decoded affects no other."""

    def __init__(self, run: Mapping[str, Any], out: Path) -> None:
        self._tables = {cls.kind: cls.tables(run) for cls in _CELLS}
        for tables in self._tables.values():
            tables.begin(out)

    def add(self, record: Record) -> str:
        """Add a cell; if its payload cannot be read, add a failed cell and return the reason."""
        record = record | {"reason": record["reason"] and printable(record["reason"])}
        tables = self._tables[record["of"]]
        try:
            tables.add(record)
        except Exception as error:  # an invalid payload may cause any error
            reason = f"its record cannot be read ({described(error)})"
            tables.add(_failed(record, reason))
            return reason
        return ""

    def stand_in(self, path: Path, omission: Omission) -> None:
        """Add the rows of another run that the folder keeps, if any, but for those left out."""
        tables = self._tables[MeasuringCell.kind]
        if path.exists() and isinstance(tables, MeasurementTables):
            rows = _read(path)
            omitted = rows["task"].isin(omission.tasks)
            omitted |= rows["estimator"].isin(omission.estimators)
            tables.stand_in(rows[~omitted])

    def write(self, out: Path) -> None:
        for tables in self._tables.values():
            tables.write(out)

    @property
    def warnings(self) -> list[str]:
        """A message for each row that could not be computed."""
        return [message for tables in self._tables.values() for message in tables.warnings]


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = in_a_line(str(error))
        raise UsageError(
            f"{path}: cannot be read: {reason}; run the suite again with --beside, or delete it"
        ) from None


def _lost(run: Mapping[str, Any], records: Mapping[str, Record]) -> set[str]:
    """The keys of cells that the tables of this run contained and that the journal has lost."""
    recorded = set(run.get("recorded") or ()) - set(records)
    return {cell["key"] for cell in run["cells"]} & recorded


def _unlisted(cells: Iterable[Mapping[str, Any]], records: Mapping[str, Record]) -> list[str]:
    """Labels of recorded cells that the suite does not have, or not any more.

    A cell that was measured again by changed code is listed under its new key.
    """
    listed = set(map(name_of, cells))
    for cell in filter(_is_pooled, cells):  # the journal has its members under their own seeds
        listed |= {_member(cell, seed) for seed in cell["seeds"]}
    left = [
        label_of(record)
        for record in records.values()
        if not _is_pooled(record["cell"]) and name_of(record["cell"]) not in listed
    ]
    return [f"{label} ({counted(n, 'cell')})" for label, n in Counter(left).items()]


def _is_pooled(cell: Mapping[str, Any]) -> bool:
    return "seed" in cell and "seeds" in cell


def _member(cell: Mapping[str, Any], seed: int) -> str:
    """The name of the cell with that seed alone."""
    return name_of({key: value for key, value in cell.items() if key != "seeds"} | {"seed": seed})


def _missing(cell: Mapping[str, Any], journal: Contents) -> Record | None:
    """A substitute for the record of a cell that the journal has lost; None if it is unknown."""
    kind = kind_of(cell)
    if kind is None:  # run.json does not describe it well enough for a row
        return None
    record = {"kind": "cell", "of": kind, "key": cell["key"], "cell": cell}
    line = next((f" (line {each.line}: {each.reason})" for each in journal.damage), "")
    return _failed(record, f"its record is lost since {journal.path.name} is damaged{line}")


def _failed(record: Record, reason: str) -> Record:
    identity = {key: record[key] for key in ("kind", "of", "key", "cell")}
    return {
        **identity,
        "status": "failed",
        "reason": f"{reason}; run the suite again to measure it",
    }


def carried(folder: Path) -> dict[str, Any]:
    """What the next run.json of the same journal keeps: where a merged run comes from, and the
    recorded cells, some of which may be lost by now.
    """
    try:
        run = read_run(folder)
    except UsageError:  # a missing or unreadable file is replaced
        return {}
    header = read_header(folder / "journal.jsonl") or {}
    same = run.get("journal") == header.get("id")
    return {key: run[key] for key in _CARRIED if key in run} if same else {}


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


def _is_list_of_claims(value: Any) -> bool:
    texts = ("holds", "says", "source", "parameter")
    return isinstance(value, list) and all(
        isinstance(claim, dict)
        and all(isinstance(claim.get(key), str) for key in texts)
        and isinstance(claim.get("on"), list)
        for claim in value
    )


def _is_list_of_sources(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("folder"), str) for each in value
    )


def _is_lists_of_names(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_list_of_str, value.values()))


_CHECKED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "suite": (lambda value: isinstance(value, str), "a name"),
    "parameters": (_is_list_of_str, "a list of names"),
    "cells": (_is_list_of_cells, "a list of cells with keys"),
    "nested": (_is_list_of_str, "a list of names"),
    "controls": (_is_lists_of_names, "a mapping of lists of names"),
    "recorded": (_is_list_of_str, "a list of keys"),
    "damage": (_is_list_of_str, "a list of lines"),
    "unlisted": (_is_list_of_str, "a list of cells"),
    "left_out": (_is_lists_of_names, "a mapping of lists of names"),
    "notes": (_is_list_of_str, "a list of lines"),
    "sources": (_is_list_of_sources, "a list of folders"),
    "claims": (_is_list_of_claims, "a list of claims"),
}


def _why_missing(folder: Path) -> str:
    """The reason why run.json is missing, and what to do."""
    if not folder.is_dir():
        return "the folder does not exist"
    if (folder / "journal.jsonl").exists():
        return "the run has not ended, so that run.json is missing; run the suite again to resume"
    return "the folder contains no run.json"


def finished(journal: Path) -> dict[str, Record]:
    """key -> the latest valid record of every cell, with its "samples" if it has been timed.

    Blocks are not verified: a run does that once, when it opens its journal.
    """
    return latest(read_journal(journal, verify=False).records)


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
