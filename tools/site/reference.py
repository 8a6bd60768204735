"""The reference results: the only door of the site to measured numbers."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import gradest

# Suites with measurements, in the order in which pages show them.
SUITES = ("catalogue", "variance", "landscape", "policy")


def results(folder: Path, suite: str) -> pd.DataFrame | None:
    """The frame of a suite's reference run in `folder`; None where there is no such run.

    Raises UsageError, naming the folder, for a run that cannot be read.
    """
    return gradest.read_results(folder / suite) if (folder / suite).is_dir() else None


def all_results(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and frame of every suite that has reference results."""
    for suite in SUITES:
        frame = results(folder, suite)
        if frame is not None:
            yield suite, frame
