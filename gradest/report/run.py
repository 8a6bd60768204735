"""A run as its folder holds it, ready to be shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradest.analysis import further, levels, tables
from gradest.analysis.further import Further
from gradest.analysis.levels import Family
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
        return levels.apart(self.frame, self.nested)

    @property
    def merged(self) -> pd.DataFrame:
        """All rows, those of a family under its one label."""
        return levels.merged(self.frame, self.nested)


def read(folder: Path) -> Run:
    """The run of a folder, from run.json and the tables beside it, nothing else.

    Raises UsageError when there is none, or it cannot be read.
    """
    run = read_run(folder)
    with further.readable(folder):
        frame = tables.annotate(further.measurements(folder))
        nested = run.get("nested") or []
        families = levels.found(frame, nested)
        return Run(frame, run, families, further.read(folder, frame, families, nested))
