"""The curves of trainings and descents: the best learning rate, bands over seeds, the ends."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from gradest.report.frames import ranking, tables
from gradest.statistics import CONFIDENCE, columns_of, median_interval, t_ppf

CHOSEN_BY = ("valid", "negative_elbo")  # the metric that chooses the learning rate
ALONE = ""  # the split of descents, which have no data
_FINAL = ("negative_elbo", "negative_bound")
_WITHIN = ["task_label", "label", "learning_rate"]


def annotate_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The points with labels, at the best learning rate of each estimator on each task.

    Raises ValueError when the params of a row are not a JSON object.
    """
    return best_rates(label_points(frame))


def label_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The points of all trainings with labels.

    Raises ValueError when the params of a row are not a JSON object.
    """
    return tables.add_labels(frame.reset_index(drop=True), [{}] * len(frame))


def best_rates(
    frame: pd.DataFrame, chosen_by: tuple[str, str] = CHOSEN_BY, largest: bool = False
) -> pd.DataFrame:
    """The labelled points at the best learning rate of each estimator on each task.

    Best is the lowest negative ELBO of the validation data at the last step, averaged over seeds,
    or the lowest, or `largest`, of another (split, metric); a training that diverged to NaN, or
    that failed, is the worst.  Trainings without numbers stay, whatever their rate.  Adds `rates`,
    how many were tried.
    """
    frame = frame.copy()
    frame["rates"] = frame.groupby(["task_label", "label"])["learning_rate"].transform("nunique")
    kept = [
        rows[
            rows["learning_rate"].eq(_best_rate(rows, chosen_by, largest)) | rows["status"].ne("ok")
        ]
        for _, rows in frame.groupby(["task_label", "label"], sort=False)
    ]
    return pd.concat(kept) if kept else frame


def best_descents(frame: pd.DataFrame, maximise: bool) -> pd.DataFrame:
    """The same of descents, by E f at the last step."""
    return best_rates(frame, (ALONE, "value"), maximise)


def _best_rate(rows: pd.DataFrame, chosen_by: tuple[str, str], largest: bool) -> float:
    split, metric = chosen_by
    seen = rows[rows["split"].eq(split) & rows["metric"].eq(metric)]
    last = seen[seen["step"].eq(seen["step"].max())]
    last = last.assign(value=-last["value"]) if largest else last
    lost = rows[rows["status"].ne("ok")].assign(value=np.inf)
    # Infinite rather than missing: a mean over the seeds that are left would hide the others.
    values = pd.concat([last, lost])[["learning_rate", "value"]].fillna(np.inf).astype(float)
    means = values.groupby("learning_rate")["value"].mean()
    return float(means.reindex(rows["learning_rate"].unique(), fill_value=np.inf).idxmin())


def average_over_seeds(points: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """Mean curves with a band: columns task_label, label, estimator, step, value, low, high, seeds.

    The band is the 95 % t interval of the mean over seeds; of a single seed it is the one over data
    points, or replicates, that the training noted.
    """
    seen = points[points["split"].eq(split) & points["metric"].eq(metric)]
    keys = [*_WITHIN, "estimator", "step"]
    rows = [
        {**dict(zip(keys, key, strict=True)), **_mean(part)}
        for key, part in seen.groupby(keys, sort=False)
    ]
    numbers = dict.fromkeys(("value", "low", "high"), float)
    return pd.DataFrame(rows, columns=[*keys, *numbers, "seeds"]).astype(numbers)


def rank_final(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The estimators of each task by the test bound, best first, with ranks that ties share."""
    for task, rows in points.groupby("task_label", sort=False):
        curves = {metric: average_over_seeds(rows, "test", metric) for metric in _FINAL}
        table = curves["negative_bound"].merge(
            curves["negative_elbo"],
            on=[*_WITHIN, "estimator", "step", "seeds"],
            suffixes=("_bound", "_elbo"),
        )
        seconds = rows[rows["split"].eq("test")].groupby("label")["seconds"].mean()
        table = table.assign(seconds=table["label"].map(seconds))
        table = table.sort_values("value_bound", kind="stable").reset_index(drop=True)
        freedom = (table["seeds"] - 1).clip(lower=1).where(table["seeds"] > 1, np.inf)
        ranked = table["value_bound"].notna()
        ends = (table[ranked][f"{end}_bound"] for end in ("value", "low", "high"))
        placed = ranking.ranks(
            *(c.to_numpy(dtype=float) for c in ends), freedom[ranked].to_numpy(dtype=float)
        )
        ranks = pd.Series(placed.rank, table.index[ranked], dtype=float)
        yield str(task), table.assign(rank=ranks)


def final_descents(points: pd.DataFrame, maximise: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """The estimators of each task at the end of their descents, best first.

    Columns task_label, label, learning_rate, estimator, step, seeds, seconds, and with both ends
    `value`, `probability` and `gradient_norm`, means over seeds, and `log_variance`, the median
    over seeds.  Descents that failed have no row.
    """
    finished = points[points["status"].eq("ok")]
    for task, rows in finished.groupby("task_label", sort=False):
        last = rows[rows["step"].eq(rows["step"].max())]
        columns = [*_WITHIN, "estimator", "step", "seeds"]
        table = last.drop_duplicates(_WITHIN)[_WITHIN]
        for metric in ("value", "probability", "gradient_norm"):
            names = dict(zip(("value", "low", "high"), columns_of(metric), strict=True))
            means = average_over_seeds(last, ALONE, metric).rename(columns=names)
            table = table.merge(means, "left", [c for c in columns if c in table])
        medians = {
            label: median_interval(part["value"]).columns("log_variance")
            for label, part in last[last["metric"].eq("log_variance")].groupby("label")
        }
        spread = pd.DataFrame([medians[label] for label in table["label"]], table.index)
        seconds = table["label"].map(last.groupby("label")["seconds"].mean())
        table = pd.concat([table, spread], axis=1).assign(seconds=seconds)
        table = table.sort_values("value", ascending=not maximise, kind="stable")
        yield str(task), table.reset_index(drop=True)


def _mean(part: pd.DataFrame) -> dict[str, float]:
    values = part["value"].to_numpy(dtype=float)
    seeds = len(values)
    if seeds == 1:
        value, low, high = (float(part[c].iloc[0]) for c in ("value", "low", "high"))
        return {"value": value, "low": low, "high": high, "seeds": 1}
    with np.errstate(invalid="ignore"):  # infinities have no spread
        mean, error = values.mean(), values.std(ddof=1) / seeds**0.5
    reach = t_ppf((1 + CONFIDENCE) / 2, seeds - 1) * error
    return {"value": mean, "low": mean - reach, "high": mean + reach, "seeds": seeds}
