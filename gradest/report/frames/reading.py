"""Runs as tidy data frames, for notebooks: what `gradest.read_results` and its like return."""

import os
from pathlib import Path

import pandas as pd

from gradest.report.frames import loading, multiplicity, tables
from gradest.running.results import read_run

Folder = str | os.PathLike[str]

_RANKED = (
    *("task_label", "parameter", "dtype", "rank", "detectable_ratio", "label", "verdict"),
    *("relative_bias", "relative_bias_low", "relative_bias_high"),
    *("variance", "variance_low", "variance_high", "mse", "mse_low", "mse_high"),
    *("evaluations", "gradient_evaluations", "replicates", "method"),
)


def read_results(folder: Folder, *more: Folder) -> pd.DataFrame:
    """The measurements of a run, or of several: one row for each cell and parameter.

    The columns are those of measurements.parquet, skipped and failed cells included (`status`);
    then `label`, the estimator with the knobs that tell it from the others, `task_label` likewise,
    `settings`, those knobs as a dict, the ends of the intervals of the relative bias and the mse,
    and `p_holm`.  Every knob has a column of its own, `task.latents` or `estimator.samples`: of
    numbers a numeric one, NaN where the task or estimator has no such knob.  Numbers that the dtype
    cannot tell from zero are zero.

    Of several runs each row says in `run` which folder it is from, and labels tell the rows of all
    of them apart.  The functions of `gradest.plots` take the frame, or a part of its rows.

    Raises UsageError, naming the folder, where there is no run or it cannot be read.
    """
    folders = [Path(each) for each in (folder, *more)]
    parts = []
    for each in folders:
        read_run(each)
        with loading.readable(each):
            rows = loading.measurements(each)
            tables.annotate(rows)  # here, where it is known whose params cannot be read
            parts.append(rows.assign(run=str(each)))
    frame = tables.annotate(pd.concat(parts))
    found = [frame, *(_knobs(frame, of) for of in ("task", "estimator"))]
    if len(folders) == 1:
        return pd.concat(found, axis=1).drop(columns="run")
    # A run is a family of tests, whatever it is read with.
    adjusted = [multiplicity.adjusted(rows) for _, rows in frame.groupby("run", sort=False)]
    return pd.concat(found, axis=1).assign(p_holm=pd.concat(adjusted))


def read_training(folder: Folder) -> pd.DataFrame:
    """The points of all curves of a run's trainings: one row a point and metric.

    The columns are those of training.parquet, then `label`, `task_label` and `settings`, as in
    `read_results`, and `rates`, how many learning rates were tried, of which the best alone is
    here.  No rows where nothing was trained.

    Raises UsageError, naming the folder, where there is no run or it cannot be read.
    """
    folder = Path(folder)
    read_run(folder)
    with loading.readable(folder):
        return loading.training(folder)


def rank(frame: pd.DataFrame) -> pd.DataFrame:
    """The rankings of a frame of `read_results`: for each task, parameter and dtype, best first.

    By mse, or by variance where the truth is unknown.  Rows share a `rank` unless a test tells them
    apart at 5 %, Holm over all pairs of one ranking; `detectable_ratio` beside a shared rank is the
    smallest ratio to the first with that rank that would have been told apart with a probability of
    80 %.  Of several runs each is ranked by itself.
    """
    frame = tables.annotate(frame)
    of_runs = [column for column in ("run",) if column in frame]
    one = [*of_runs, "task", "task_params", "dtype"]
    ranked = [
        tables.ranked(tables.measured(rows, parameter))
        for _, rows in frame.groupby(one, sort=False, dropna=False)
        for parameter in tables.parameters(rows)
    ]
    columns = [*of_runs, *_RANKED]
    found = pd.concat(ranked, ignore_index=True) if ranked else frame[:0]
    return found.reindex(columns=columns).astype({"rank": "Int64"})


def _knobs(frame: pd.DataFrame, of: str) -> pd.DataFrame:
    """A column for each knob of the tasks, or of the estimators."""
    params = [tables.knobs(text) for text in frame[f"{of}_params"]]
    names = dict.fromkeys(name for each in params for name in each)
    columns = {f"{of}.{name}": [each.get(name) for each in params] for name in names}
    return pd.DataFrame(columns, frame.index)
