"""Runs as tidy data frames, for notebooks: `gradest.read_results` and similar functions."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from gradest.errors import UsageError
from gradest.report.frames import tables
from gradest.report.frames.loading import load_measurements, load_run, load_training
from gradest.report.frames.problems import readable
from gradest.runs import (
    COLUMNS,
    find_reference,
    measurements_frame,
    read_manifest,
    read_run,
    references_folder,
)
from gradest.support import suggestion

Folder = str | os.PathLike[str]

# What a row of one's own has to say; a measurement's says more.
_IDENTITY = ("task", "task_params", "estimator", "estimator_params", "seed", "dtype", "parameter")
_RANKED = (
    *("task_label", "parameter", "dtype", "rank", "detectable_ratio", "label", "verdict"),
    *("relative_bias", "relative_bias_low", "relative_bias_high"),
    *("variance", "variance_low", "variance_high", "mse", "mse_low", "mse_high"),
    *("evaluations", "gradient_evaluations", "replicates", "method", "origin"),
)


def read_results(folder: Folder, *more: Folder) -> pd.DataFrame:
    """The measurements of a run, or of several: one row for each cell and parameter.

    The columns are those of measurements.parquet, skipped and failed cells included (`status`);
    then `label`, the estimator with the knobs that distinguish it from the others, `task_label`,
    the same for the task, `settings`, those knobs as a dict, the ends of the intervals of the
    relative bias and the mse, and `p_holm`.  Every knob has a column of its own, `task.latents` or
    `estimator.samples`: of numbers a numeric one, NaN where the task or estimator has no such knob.
    Numbers that the dtype cannot distinguish from zero are zero.

    With several runs, the column `run` holds the folder of each row, and labels distinguish the
    rows of all of them; figures also name the run.  The functions of `gradest.plots` take the
    frame, or a part of its rows.

    Raises UsageError, naming the folder, if the run is missing or cannot be read.
    """
    folders = [Path(each) for each in (folder, *more)]
    parts = []
    for each in folders:
        read_run(each)
        with readable(each):
            rows = load_measurements(each)
            tables.annotate(rows)  # so that an error names the folder
            parts.append(rows.assign(run=str(each)))
    rows = pd.concat(parts)
    return _tidy(rows if len(folders) > 1 else rows.drop(columns="run"))


def reference(suite: str | None = None) -> pd.DataFrame:
    """The reference results of a suite that come with gradest; without a name, a list of them.

    The frame is that of `read_results`; of a suite that only trains it is that of `read_training`,
    and of one that only descends that of `read_descents`.  The list has a row for each suite: its
    cells, when they were measured, the commit and the versions that measured them, and the model
    of the processor.

    Raises UsageError, which names the suites that have reference results, for any other suite, and
    for files that are missing or damaged.
    """
    if suite is None:
        return _listed_references()
    folder = find_reference(suite)
    frame = read_results(folder)
    if frame.empty:
        frame = read_training(folder)
    return read_descents(folder) if frame.empty else frame


def _listed_references() -> pd.DataFrame:
    rows = [
        {
            "suite": suite,
            "cells": each["cells"],
            "measured": each["finished"],
            "commit": each["commit"],
            "gradest": each["versions"]["gradest"],
            "torch": each["versions"]["torch"],
            "cpu": each["machine"]["cpu"],
        }
        for suite, each in read_manifest(references_folder()).items()
    ]
    columns = ["suite", "cells", "measured", "commit", "gradest", "torch", "cpu"]
    return pd.DataFrame(rows, columns=columns)


def as_results(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame like those of `read_results`, made of rows of `Measurement.row` if it is not one.

    Such rows have neither labels nor the columns that only a run has, which become NaN; columns
    of their own, such as `run`, are kept.

    Raises UsageError, naming the columns, for rows that do not say what was measured.
    """
    if "label" in frame:
        return frame
    if missing := [column for column in _IDENTITY if column not in frame]:
        raise UsageError(
            "expected a frame of read_results or of rows of measurements, got one without the "
            f"column {', '.join(missing)}"
        )
    own = frame[[column for column in frame if column not in COLUMNS]].reset_index(drop=True)
    return _tidy(pd.concat([measurements_frame(frame.to_dict("records")), own], axis=1))


def _tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with labels, intervals and a column for each knob; `run` marks those of a run."""
    frame = tables.annotate(rows)
    columns = [frame, *(_knobs(frame, kind) for kind in ("task", "estimator"))]
    frame = pd.concat(columns, axis=1)
    if "run" not in frame:
        return frame
    # A run is a family of tests, whatever it is read with.
    runs = frame.groupby("run", sort=False, dropna=False)
    return frame.assign(p_holm=pd.concat([tables.adjust_p_values(rows) for _, rows in runs]))


def read_training(folder: Folder) -> pd.DataFrame:
    """The points of all curves of a run's trainings: one row a point and metric.

    The columns are those of training.parquet, then `label`, `task_label` and `settings`, as in
    `read_results`, and `rates`, how many learning rates were tried, of which the best alone is
    here.  No rows where nothing was trained.

    Raises UsageError, naming the folder, if the run is missing or cannot be read.
    """
    folder = Path(folder)
    read_run(folder)
    with readable(folder):
        return load_training(folder)


def read_descents(folder: Folder) -> pd.DataFrame:
    """The records of a run's descents: one row a seed, step and metric.

    The columns are those of descents.parquet, then `label`, `task_label` and `settings`, as in
    `read_results`, and `rates`, how many learning rates were tried, of which the best alone is
    here.  No rows where nothing was descended.

    Raises UsageError, naming the folder, if the run is missing or cannot be read.
    """
    folder = Path(folder)
    with readable(folder):
        return load_run(folder).descents.drop(columns="split")


def rename(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The frame with other names for some estimators, such as `{"my_estimator": "Ours"}`.

    For tables and figures: `rank`, `latex_table` and the functions of `gradest.plots` take the
    result.  `names` maps names of the column `estimator`; labels keep their knobs.

    Raises UsageError for an estimator that the frame does not have, and for one name of two.
    """
    frame = frame if "label" in frame else as_results(frame)
    own = dict.fromkeys(frame["estimator"].astype(str))
    for name in names:
        if name not in own:
            raise UsageError(f"rename: no estimator {name!r} in this frame{suggestion(name, own)}")
    renamed = [names.get(name, name) for name in own]
    if twice := [name for name, count in Counter(renamed).items() if count > 1]:
        raise UsageError(f"rename: expected a name for each estimator, got {twice[0]!r} twice")
    pairs = zip(frame["estimator"].astype(str), frame["label"].astype(str), strict=True)
    labels = [names.get(name, name) + label.removeprefix(name) for name, label in pairs]
    return frame.assign(
        estimator=frame["estimator"].astype(str).replace(dict(names)),
        label=pd.Series(labels, frame.index, dtype=frame["label"].dtype),
    )


def rank(frame: pd.DataFrame) -> pd.DataFrame:
    """The rankings of a frame of `read_results`: for each task, parameter and dtype, best first.

    Also of a frame of rows of `Measurement.row`; other frames raise UsageError.

    By mse, or by variance where the truth is unknown.  Rows share a `rank` unless they differ
    significantly at 5 %, Holm over all pairs of one ranking; `detectable_ratio` of a shared rank is
    the smallest ratio to the first row with that rank that the test would detect with 80 % power.
    Several runs are ranked separately.
    """
    frame = as_results(frame)
    of_runs = [column for column in ("run",) if column in frame]
    one = [*of_runs, "task", "task_params", "dtype"]
    rows = tables.measured_rows(frame)
    number = rows.groupby(one, sort=False, dropna=False).ngroup()
    later = rows["parameter"].ne("log_alpha")  # than log α, which is first
    rows = rows.iloc[np.lexsort([rows["parameter"], later, number])]
    rows = tables.rank_rows(rows, within=[*one, "parameter"]).reset_index(drop=True)
    columns = [*of_runs, *_RANKED]
    return rows.reindex(columns=columns).astype({"rank": "Int64"})


def _knobs(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A column for each knob of the tasks, or of the estimators."""
    params = [tables.parse_knobs(text) for text in frame[f"{kind}_params"]]
    names = dict.fromkeys(name for each in params for name in each)
    columns = {f"{kind}.{name}": [each.get(name) for each in params] for name in names}
    return pd.DataFrame(columns, frame.index)
