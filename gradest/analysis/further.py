"""The further tables of a run, labelled as its measurements are."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gradest.analysis import levels, tables
from gradest.analysis.levels import Family
from gradest.running.results import ADAPTATION, SOURCES


def looks(folder: Path, frame: pd.DataFrame, nested: Sequence[str] = ()) -> pd.DataFrame:
    """What adaptive estimators' variance was at their steps; of a cell that ran twice, the last.

    `frame` holds the annotated measurements.  Of the settings of a sweep or of nested levels,
    which share a task_label, each has rows.  Raises ValueError for a table with other columns.
    """
    rows = _read(folder / "adaptation.parquet", ADAPTATION)
    rows = rows.drop_duplicates([*ADAPTATION[:7], "step"], keep="last")
    merged = levels.merged(frame, nested)
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


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """No rows where there is no file: runs of old have none."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    rows = pd.read_parquet(path)
    if missing := [c for c in columns if c not in rows]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}")
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
