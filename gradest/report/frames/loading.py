"""The tables of a run's folder, the further ones labelled as its measurements are."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradest.errors import UsageError
from gradest.report.frames import curves, nested_factors, tables
from gradest.report.frames.nested_factors import Family
from gradest.running.results import ADAPTATION, COLUMNS, SOURCES
from gradest.training.tables import COLUMNS as TRAINING

Images = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


class Further(NamedTuple):
    """What a run holds beside its measurements; tables without rows where it holds none."""

    looks: pd.DataFrame  # at adaptive estimators as they adapt
    sources: pd.DataFrame  # of the variance
    points: pd.DataFrame  # of the curves of trainings
    images: Images  # (task_label, label) -> name -> [how many, H, W]
    properties: pd.DataFrame  # of distributions


@contextmanager
def readable(folder: object) -> Iterator[None]:
    """Raises UsageError, naming the folder, for tables that within the block cannot be read."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder}: holds no readable run: {reason}") from error


def read(
    folder: Path, frame: pd.DataFrame, families: Sequence[Family], nested: Sequence[str]
) -> Further:
    """All of it.  Raises ValueError for tables with other columns, OSError for broken files."""
    points = training(folder)
    return Further(
        looks(folder, frame, nested),
        sources(folder, frame, families),
        points,
        pictures(folder, points),
        properties(folder),
    )


def measurements(folder: Path) -> pd.DataFrame:
    """The rows as they were written.  Raises ValueError for other columns, OSError without any."""
    return _checked(pd.read_parquet(folder / "measurements.parquet"), COLUMNS, "measurements")


def looks(folder: Path, frame: pd.DataFrame, nested: Sequence[str] = ()) -> pd.DataFrame:
    """What adaptive estimators' variance was at their steps; of a cell that ran twice, the last.

    `frame` holds the annotated measurements.  Of the settings of a sweep or of nested levels,
    which share a task_label, each has rows.  Raises ValueError for a table with other columns.
    """
    rows = _read(folder / "adaptation.parquet", ADAPTATION)
    rows = rows.drop_duplicates([*ADAPTATION[:7], "step"], keep="last")
    merged = nested_factors.merged(frame, nested)
    labels = {
        (task, params): label
        for task, params, label in merged[["task", "task_params", "task_label"]].to_numpy()
    }
    keys = zip(rows["task"], rows["task_params"], strict=True)
    return _named(rows, frame).assign(
        task_label=pd.Series([labels.get(k, str(k[0])) for k in keys], rows.index, dtype="str")
    )


def sources(folder: Path, frame: pd.DataFrame, families: Sequence[Family]) -> pd.DataFrame:
    """The components of the variance; their task_label is the name of their family.

    Raises ValueError for a table with other columns.
    """
    rows = _read(folder / "sources.parquet", SOURCES)
    names = {(family.task, family.task_params): family.name for family in families}
    keys = zip(rows["task"], rows["task_params"], strict=True)
    return _named(rows, frame).assign(
        task_label=pd.Series([names.get(k, str(k[0])) for k in keys], rows.index, dtype="str")
    )


def training(folder: Path) -> pd.DataFrame:
    """The annotated points of all curves.  Raises ValueError for a table with other columns."""
    rows = _read(folder / "training.parquet", TRAINING)
    return curves.annotated(rows)


def pictures(folder: Path, points: pd.DataFrame) -> Images:
    """(task_label, label) -> name -> images, of the first seed.  Raises ValueError, OSError."""
    path = folder / "pictures.npz"
    if points.empty or not path.exists():
        return {}
    firsts = points.drop_duplicates(["task_label", "label"])
    with np.load(path, allow_pickle=False) as arrays:
        return {
            (row.task_label, row.label): {
                name.partition("/")[2]: arrays[name]
                for name in arrays.files
                if name.startswith(f"{row.key}/")
            }
            for row in firsts.itertuples()
            if f"{row.key}/data" in arrays.files
        }


def properties(folder: Path) -> pd.DataFrame:
    """The rows of properties; none where none was looked at."""
    path = folder / "properties.parquet"
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """No rows where there is no file: runs of old have none."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    return _checked(pd.read_parquet(path), columns, path.stem)


def _checked(rows: pd.DataFrame, columns: Sequence[str], table: str) -> pd.DataFrame:
    if missing := [c for c in columns if c not in rows]:
        raise ValueError(f"{table}.parquet has no column {', '.join(missing)}")
    return rows


def _named(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Adds label, settings and tag, the values of the settings."""
    known = {
        (estimator, params): settings
        for estimator, params, settings in frame[
            ["estimator", "estimator_params", "settings"]
        ].to_numpy()
    }
    varied = [c for c in ("dtype", "seed") if frame[c].nunique() > 1]
    settings = [
        known.get((row["estimator"], row["estimator_params"]), {}) | {c: row[c] for c in varied}
        for row in rows.to_dict("records")
    ]
    labels = map(tables.label, rows["estimator"].astype(str), settings)
    tags = [", ".join(map(tables.plain, each.values())) for each in settings]
    return rows.assign(
        settings=pd.Series(settings, rows.index, dtype=object),
        label=pd.Series(list(labels), rows.index, dtype="str"),
        tag=pd.Series(tags, rows.index, dtype="str"),
    )
