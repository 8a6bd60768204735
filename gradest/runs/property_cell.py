"""Cells that test a property of a distribution."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from gradest.checks.properties import Row, run_property
from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.runs.cells import Cell, CellTables, Payload
from gradest.runs.journal import Record
from gradest.support import write_frame


class PropertyTables(CellTables):
    """The table of properties."""

    optional = ("properties.parquet",)

    def __init__(self, run: Mapping[str, Any]) -> None:
        super().__init__(run)
        self._rows: list[dict[str, Any]] = []

    def add(self, record: Record) -> None:
        """A failed cell becomes a row that does not hold."""
        if record["status"] == "ok":
            self._rows.extend(record["rows"])
            return
        name, knobs = record["cell"]["name"], record["cell"]["knobs"]
        nan, reason = math.nan, record["reason"]
        row = Row(name, knobs, "failed", nan, nan, nan, "=", nan, False, reason)
        self._rows.append(row.record())

    def write(self, out: Path) -> None:
        if self._rows:
            write_frame(out / "properties.parquet", pd.DataFrame(self._rows))


@dataclass(frozen=True)
class PropertyCell(Cell):
    """A property with values of its knobs."""

    kind: ClassVar[str] = "property"
    tables: ClassVar[type[CellTables]] = PropertyTables

    name: str
    knobs: Mapping[str, Any]
    seed: int

    @property
    def members(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        return ((self.name, self.knobs),)

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        rows = run_property(self.name, self.knobs, self.draw_seed)
        return {"rows": [row.record() for row in rows]}

    def expected_seconds(self, registry: Registry) -> float:
        return 1.0  # or two; a trial would take as long
