"""A run as its folder holds it, ready to be shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradest.report.frames import loading, nested_factors, tables
from gradest.report.frames.loading import Further
from gradest.report.frames.nested_factors import Family
from gradest.running.results import read_run


class Run(NamedTuple):
    """Annotated rows of measurements, what run.json says, and what else was looked at."""

    frame: pd.DataFrame
    described: Mapping[str, Any]
    families: list[Family]
    further: Further

    @property
    def nested(self) -> list[str]:
        """The nested levels, outermost first."""
        return self.described.get("nested") or []

    @property
    def single(self) -> pd.DataFrame:
        """The rows that belong to no family of nested levels."""
        return nested_factors.apart(self.frame, self.nested)

    @property
    def merged(self) -> pd.DataFrame:
        """All rows, those of a family under its one label."""
        return nested_factors.merged(self.frame, self.nested)


def read(folder: Path) -> Run:
    """The run of a folder, from run.json and the tables beside it, nothing else.

    Raises UsageError when there is none, or it cannot be read.
    """
    run = read_run(folder)
    with loading.readable(folder):
        frame = tables.annotate(loading.measurements(folder))
        nested = run.get("nested") or []
        families = nested_factors.found(frame, nested)
        return Run(frame, run, families, loading.read(folder, frame, families, nested))
