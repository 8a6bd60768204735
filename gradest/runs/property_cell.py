"""Cells that test a property of a distribution."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gradest.checks.properties import Row, run_property
from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.runs.cells import Cell, Payload
from gradest.runs.journal import Record


@dataclass(frozen=True)
class PropertyCell(Cell):
    """A property with values of its knobs."""

    kind: ClassVar[str] = "property"

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

    @staticmethod
    def rows(record: Record) -> Iterator[dict[str, Any]]:
        """The rows of a recorded cell; a failed cell becomes a row that does not hold."""
        if record["status"] == "ok":
            yield from record["rows"]
            return
        name, knobs = record["cell"]["name"], record["cell"]["knobs"]
        nan, reason = math.nan, record["reason"]
        yield Row(name, knobs, "failed", nan, nan, nan, "=", nan, False, reason).record()
