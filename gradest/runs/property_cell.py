"""Cells that test a property of a distribution."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gradest.checks.properties import run_property
from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.runs.cells import Cell, Payload


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
        return 0.0  # a second or two; a trial would take as long
