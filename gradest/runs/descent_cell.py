"""Cells that descend the logits of a task with an estimator, all seeds at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch

from gradest.knobs import build
from gradest.measurement import Reference
from gradest.plugins import Registry
from gradest.randomness import seed_of
from gradest.runs.cells import CellTables, EstimatorCell, Payload, canonical
from gradest.runs.descent import COLUMNS, Descent, descend, rows, seconds_expected
from gradest.runs.journal import Record
from gradest.runs.training import Annealing, DescentSettings
from gradest.runs.training_cell import own_folder
from gradest.support import one_thread, write_frame

# Fields on which no draw depends, so that a longer run begins as a shorter one, and a seed is the
# same next to any others.
_DRAWS_APART = ("seeds", "steps", "descent")


class DescentTables(CellTables):
    """The curves of descents."""

    optional = ("descents.parquet", "descents.csv")

    def __init__(self, run: Mapping[str, Any]) -> None:
        super().__init__(run)
        self._curves: list[tuple[Any, ...]] = []

    def add(self, record: Record) -> None:
        self._curves.extend(list(rows(self.suite, record)))

    def write(self, out: Path) -> None:
        if self._curves:
            frame = pd.DataFrame(self._curves, columns=list(COLUMNS))
            write_frame(out / "descents.parquet", frame)
            write_frame(out / "descents.csv", frame)


@dataclass(frozen=True)
class DescentCell(EstimatorCell):
    """The descents of a task with an estimator, one for each seed."""

    kind: ClassVar[str] = "descent"
    tables: ClassVar[type[CellTables]] = DescentTables
    settings: ClassVar[tuple[str, ...]] = ("learning_rate",)

    seeds: Sequence[int]
    learning_rate: float
    steps: int
    descent: Mapping[str, Any]
    anneal: Mapping[str, Any]  # knob -> how it falls
    dtype: str
    device: str

    def outcome(self, registry: Registry, folder: Path, reference: Reference | None) -> Payload:
        own, begin = own_folder(folder, self.key), partial(self.begin, registry)
        return {"descent": descend(begin, self.draw_seeds, self.steps, own).to_json()}

    @classmethod
    def without_times(cls, payload: Payload) -> Payload:
        return {"descent": {**payload["descent"], "seconds": None}}

    def expected_seconds(self, registry: Registry) -> float:
        with one_thread():
            return seconds_expected(partial(self.begin, registry), self.draw_seeds, self.steps)

    def begin(self, registry: Registry, seeds: Sequence[int]) -> Descent:
        """The descent at its start, for some of `draw_seeds`.  Raises Inapplicable."""
        return Descent(
            build(registry.estimator(self.estimator), self.estimator_knobs),
            build(registry.task(self.task), self.task_knobs),
            DescentSettings.model_validate(self.descent),
            learning_rate=self.learning_rate,
            seeds=seeds,
            anneal={knob: Annealing.model_validate(own) for knob, own in self.anneal.items()},
            dtype=getattr(torch, self.dtype),
            device=self.device,
        )

    @property
    def draw_seeds(self) -> list[int]:
        """A seed of draws for each seed."""
        measured = {k: v for k, v in self._measured.items() if k not in _DRAWS_APART}
        measured |= {k: self.descent[k] for k in ("optimiser", "maximise")}
        return [seed_of(f"draws {canonical(measured | {'seed': seed})}") for seed in self.seeds]
