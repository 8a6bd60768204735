"""Cells that search for a counterexample to a claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.runs.cells import Cell, CellTables, Payload, canonical
from gradest.runs.claims import parse_claim
from gradest.runs.journal import Record
from gradest.runs.refutation import (
    COLUMNS,
    GENERAL,
    Trial,
    contestants_of,
    evaluations_of,
    refute,
    row,
    spaces_of,
    texts,
)
from gradest.support import write_frame, write_text

_SECONDS = 0.004  # for a problem, about


class SearchTables(CellTables):
    """The table of searches, and the files of their counterexamples."""

    columns: ClassVar[tuple[str, ...]] = ("holds", "for_all", "status", "reason", *COLUMNS)
    optional = ("searches.parquet",)

    def __init__(self, run: Mapping[str, Any]) -> None:
        super().__init__(run)
        self._rows: list[dict[str, Any]] = []
        self._files: dict[str, str] = {}

    def add(self, record: Record) -> None:
        """A failed cell becomes a row without a verdict."""
        cell = record["cell"]
        rows = {"holds": cell["holds"], "for_all": canonical(cell["for_all"])}
        rows |= {"status": record["status"], "reason": record["reason"]}
        if record["status"] == "ok":
            rows |= {name: record["search"][name] for name in COLUMNS}
            folder = f"counterexamples/{record['key'][:8]}"
            self._files |= {f"{folder}/{name}": text for name, text in record["files"].items()}
        self._rows.append(rows)

    def write(self, out: Path) -> None:
        if self._rows:
            frame = pd.DataFrame(self._rows).reindex(columns=list(self.columns))
            write_frame(out / "searches.parquet", frame)
        for name, text in self._files.items():
            write_text(out / name, text)


@dataclass(frozen=True)
class SearchCell(Cell):
    """A search for a counterexample to a claim, among the problems of `for_all`."""

    kind: ClassVar[str] = "search"
    tables: ClassVar[type[CellTables]] = SearchTables
    settings: ClassVar[tuple[str, ...]] = ("seed", "holds")

    holds: str
    for_all: Mapping[str, Any]
    estimators: Sequence[Sequence[Any]]  # name, knobs and steps of adaptation of each quantity's
    seed: int

    @property
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        task = self.for_all.get("task", GENERAL)
        return (task, {}), *((name, knobs) for name, knobs, _ in self.estimators)

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        relation = parse_claim(self.holds)
        trial = Trial(relation, contestants_of(relation, self.estimators, registry), self.draw_seed)
        spaces = spaces_of(self.for_all, registry, list(trial.contestants.values()))
        result = refute(trial, spaces, evaluations_of(self.for_all))
        files = {}
        if result.counterexample is not None:
            files = texts(trial, self.holds, result.counterexample)
        return {"search": row(result), "files": files}

    @classmethod
    def without_times(cls, payload: Payload) -> Payload:
        return {**payload, "search": {**payload["search"], "seconds": None}}

    def expected_seconds(self, registry: Registry) -> float:
        return _SECONDS * evaluations_of(self.for_all)
