"""Loads the runs of a comparison: their cells, with keys that match them between runs."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradest.errors import UsageError
from gradest.report.frames import curves
from gradest.report.frames.loading import (
    load_claims,
    load_descents,
    load_properties,
    load_training,
    maximises,
)
from gradest.report.frames.problems import readable
from gradest.runs import Record, latest, read_journal, read_run

Records = Mapping[int, Record]  # by seed


class Key(NamedTuple):
    """The common identity of cells of two runs; params are JSON."""

    kind: str  # measurement, training or descent
    task: str
    task_params: str
    estimator: str
    estimator_params: str
    dtype: str  # "" of a training or a descent
    setting: str  # other settings that a run varies: replicates or learning rate; mostly ""


class Run(NamedTuple):
    """A run's folder, the content of its run.json, and its cells."""

    name: str
    folder: Path
    facts: Mapping[str, Any]
    cells: Mapping[Key, Records]
    points: pd.DataFrame  # annotated, of the curves of trainings
    properties: pd.DataFrame
    claims: pd.DataFrame = pd.DataFrame()
    descents: pd.DataFrame = pd.DataFrame()  # annotated, of the curves of descents


def load_runs(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Run]:
    """The runs in the folders, none of which is changed; `names` replace those of the folders.

    Raises UsageError for fewer than two folders, the same folder twice, and one without a run.
    """
    folders = [Path(folder) for folder in folders]
    if len(folders) < 2:
        raise UsageError(f"expected the folders of two runs or more to compare, got {len(folders)}")
    seen: dict[Path, Path] = {}
    for folder in folders:
        other = seen.setdefault(folder.resolve(), folder)
        if other is not folder:
            raise UsageError(
                f"{folder}: the same run as {other}; expected folders of different runs"
            )
    loaded = [(folder, _described(folder), _records(folder)) for folder in folders]
    swept = {key for _, run, records in loaded for key in _swept(_cells(run, records))}
    return [
        Run(
            name,
            folder,
            run,
            _by_seed(_cells(run, records), swept),
            *_tables(folder),
            _descents(folder, run),
        )
        for name, (folder, run, records) in zip(names or _names(folders), loaded, strict=True)
    ]


def check_run(folder: Path) -> None:
    """Raises UsageError for a folder that `load_runs` could not read."""
    _described(folder)
    _records(folder)


def repeats(base: Run, other: Run, cells: Sequence[Key]) -> bool:
    """Whether both runs measured the cells in the same way, so that equal code gives equal numbers.

    The seeds, the protocol, the versions of task and estimator, torch and the processor have to be
    the same.  A limit of time is met after another number of replicates in every run.
    """
    machines = [
        (run.facts.get("machine", {}).get("cpu"), run.facts.get("versions", {}).get("torch"))
        for run in (base, other)
    ]
    if machines[0] != machines[1] or None in machines[0]:
        return False
    pairs = [
        (base.cells[key][seed]["cell"], other.cells[key][seed]["cell"])
        for key in cells
        for seed in base.cells[key]
        if seed in other.cells[key]
    ]
    return bool(pairs) and all(_same_protocol(*pair) for pair in pairs)


def _same_protocol(base: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if (base.get("precision") or {}).get("max_seconds") is not None:
        return False
    fields = (base.keys() | other.keys()) - {"code"}
    return all(base.get(name) == other.get(name) for name in fields)


class Overlap(NamedTuple):
    """How many cells of two runs are in both, measured in both, and in one of them alone.

    Cells are those of measurements, trainings and descents, the seeds of one taken together.
    """

    compared: int
    common: int
    base_only: int
    other_only: int

    @property
    def total(self) -> int:
        return self.common + self.base_only + self.other_only

    @property
    def share(self) -> float:
        """The part of all cells that is compared."""
        return self.compared / self.total if self.total else 0.0

    def __str__(self) -> str:
        """`2 of 14 cells are compared; 5 only in the baseline, 7 only in the other run`."""
        parts = []
        if self.common > self.compared:
            parts.append(f"{self.common - self.compared:,} in both without numbers in both")
        parts += [f"{self.base_only:,} only in the baseline"] if self.base_only else []
        parts += [f"{self.other_only:,} only in the other run"] if self.other_only else []
        rest = f"; {', '.join(parts)}" if parts else ""
        return f"{self.compared:,} of {self.total:,} cells are compared{rest}"


def overlap(base: Run, other: Run) -> Overlap:
    common = [key for key in base.cells if key in other.cells]
    compared = [key for key in common if all(_has_numbers(run.cells[key]) for run in (base, other))]
    return Overlap(
        len(compared),
        len(common),
        len(base.cells) - len(common),
        len(other.cells) - len(common),
    )


def _has_numbers(records: Records) -> bool:
    return any(
        record["status"] == "ok" and not record.get("measurement", {}).get("nonfinite")
        for record in records.values()
    )


def _described(folder: Path) -> dict[str, Any]:
    run = read_run(folder)
    if missing := [key for key in ("cells", "parameters") if key not in run]:
        raise UsageError(f"{folder}: holds no readable run: run.json lacks {', '.join(missing)}")
    return run


def _records(folder: Path) -> dict[str, Record]:
    contents = read_journal(folder / "journal.jsonl")
    if not (contents.header or contents.records or contents.damage):
        raise UsageError(
            f"{folder}: journal.jsonl is missing, which is needed to compare means; put it back"
        )
    if contents.damage:
        raise UsageError(
            f"{folder}: {contents.told[0]}; run its suite again to measure the lost cells, then "
            "compare it"
        )
    return latest(contents.records)


def _cells(run: Mapping[str, Any], records: Mapping[str, Record]) -> list[Record]:
    """The records of the cells that run.json names, as far as the journal holds them."""
    named = [cell.get("key") for cell in run.get("cells") or ()]
    return [records[key] for key in named if key in records]


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    with readable(folder):
        return load_training(folder), load_properties(folder), load_claims(folder)


def _descents(folder: Path, run: Mapping[str, Any]) -> pd.DataFrame:
    with readable(folder):
        return curves.best_descents(load_descents(folder), maximises(run))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where these differ, else their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _key(record: Record) -> Key:
    cell = record["cell"]
    params = (json.dumps(cell[f"{k}_knobs"], sort_keys=True) for k in ("task", "estimator"))
    task_params, estimator_params = params
    return Key(
        record["of"],
        cell["task"],
        task_params,
        cell["estimator"],
        estimator_params,
        cell["dtype"] if record["of"] == "measurement" else "",
        "",
    )


def _comparable(records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each["of"] in ("measurement", "training", "descent")]


def _seeds(record: Record) -> Sequence[int]:
    """The seeds of a cell: those of a descent are one cell."""
    cell = record["cell"]
    return cell["seeds"] if record["of"] == "descent" else [cell["seed"]]


def _swept(records: Sequence[Record]) -> set[Key]:
    """The keys of which a run holds several cells of one seed."""
    count = Counter((_key(r), seed) for r in _comparable(records) for seed in _seeds(r))
    return {key for (key, _), number in count.items() if number > 1}


def _by_seed(records: Sequence[Record], swept: set[Key]) -> dict[Key, dict[int, Record]]:
    cells: dict[Key, dict[int, Record]] = defaultdict(dict)
    for record in _comparable(records):
        key = _key(record)
        if key in swept:
            key = key._replace(setting=_setting(record["cell"]))
        cells[key] |= dict.fromkeys(_seeds(record), record)
    return dict(cells)


def _setting(cell: Mapping[str, Any]) -> str:
    named = ("replicates", "learning_rate")
    return ", ".join(f"{k}={cell[k]}" for k in named if cell.get(k) is not None)
