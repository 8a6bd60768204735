"""Many rankings in a few rows: the best estimator of each, and each estimator over all of them.

Estimators whose number is zero in every ranking, as that of exact enumeration, are not compared:
they would be the best everywhere, at whatever cost.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from gradest.report.frames import tables
from gradest.report.frames.rankings import Section

OVERVIEW = (
    *("task", "task_params", "task_label", "parameter", "dtype", "ranked_by", "best", "tied"),
    *("value", "low", "high", "second", "ratio"),
)
STANDINGS = (
    *("label", "tasks", "best", "median_rank", "median_ratio", "largest_ratio"),
    *tables.VERDICTS,
)
_KEPT = [
    *("task", "task_params", "label", "dtype", "rank", "verdict"),
    *("mse", "mse_low", "mse_high", "variance", "variance_low", "variance_high"),
]
_ONE = ["place", "dtype"]  # of one ranking


def compared(sections: Iterable[Section]) -> pd.DataFrame:
    """The rows of all rankings, best first in each, with the number that each is ranked by.

    Adds `place`, the number of the ranking, `task_label`, `parameter`, `ranked_by`, `value`, `low`
    and `high`, and `alone`: whether the value of the estimator is zero in all rankings.
    """
    every = [
        (section.label, ranking.parameter, ranking.rows[_columns(ranking.rows)])
        for section in sections
        for ranking in section.rankings
    ]
    if not every:
        columns = [*_KEPT, "place", "task_label", "parameter", "ranked_by", "value", "low", "high"]
        return pd.DataFrame(columns=[*columns, "alone"])
    lengths = [len(rows) for *_, rows in every]
    rows = pd.concat([rows for *_, rows in every], ignore_index=True)
    rows = rows.assign(
        place=np.repeat(np.arange(len(every)), lengths),
        task_label=np.repeat([label for label, *_ in every], lengths),
        parameter=np.repeat([parameter for _, parameter, _ in every], lengths),
    )
    known = np.isfinite(rows["mse"].astype(float)).groupby(rows["place"]).transform("any")
    rows = rows.assign(
        ranked_by=np.where(known, "mse", "variance"),
        value=rows["mse"].where(known, rows["variance"]),
        low=rows["mse_low"].where(known, rows["variance_low"]),
        high=rows["mse_high"].where(known, rows["variance_high"]),
    )
    return rows.assign(alone=rows["value"].eq(0).groupby(rows["label"]).transform("all"))


def _columns(rows: pd.DataFrame) -> list[str]:
    return [*_KEPT, *(c for c in ("point",) if c in rows)]  # of a sweep


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """The best estimator of every task, parameter and dtype, of rows that are compared: a row each.

    `tied` are the others that share its rank, and `second` is the first with another rank.
    """
    rows = rows[~rows["alone"] & rows["rank"].notna()]
    first = rows.groupby(_ONE, sort=False)["rank"].transform("first")
    best = rows.drop_duplicates(_ONE).set_index(_ONE)
    tied = rows[rows["rank"].eq(first) & rows.duplicated(_ONE)]
    tied = tied.groupby(_ONE, sort=False)["label"].agg("; ".join)
    second = rows[rows["rank"].ne(first)].drop_duplicates(_ONE).set_index(_ONE)
    found = best.assign(
        best=best["label"],
        tied=tied.reindex(best.index).fillna(""),
        second=second["label"].reindex(best.index).fillna(""),
        ratio=second["value"].reindex(best.index) / best["value"].where(best["value"] > 0),
    )
    return found.reset_index()[list(OVERVIEW)]


def standings(rows: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Each estimator over the rankings of all tasks for one parameter, in the finest dtype.

    Ratios are those of its value to the lowest one of the task.  Sorted by the median rank.
    """
    rows = rows[rows["parameter"].eq(parameter) & ~rows["alone"]]
    if rows.empty:
        return pd.DataFrame(columns=list(STANDINGS))
    rows = rows[rows["dtype"].eq(min(rows["dtype"].unique(), key=tables.resolution))]
    lowest = rows["value"].where(rows["rank"].notna()).groupby(rows["place"]).transform("min")
    first = rows["rank"].groupby(rows["place"]).transform("min")
    rows = rows.assign(ratio=rows["value"] / lowest.where(lowest > 0), first=rows["rank"].eq(first))
    groups = rows.groupby("label", sort=False)
    found = pd.DataFrame(
        {
            "tasks": groups.size(),
            "best": groups["first"].sum(),
            "median_rank": groups["rank"].median(),
            "median_ratio": groups["ratio"].median(),
            "largest_ratio": groups["ratio"].max(),
            **{v: rows["verdict"].eq(v).groupby(rows["label"]).sum() for v in tables.VERDICTS},
        }
    )
    by = ["median_rank", "median_ratio", "label"]
    return found.rename_axis("label").reset_index().sort_values(by, kind="stable")


def best_by_range(rows: pd.DataFrame) -> pd.DataFrame:
    """The best estimator along a sweep, of compared rows with a column `point`: a row a range.

    A range goes on as long as its estimator shares the first rank, so that noise alone does not
    end it.  Columns first and last (points), settings, best, value (its median), second and ratio
    (the median ratio to the value of the best, of the estimator with the lowest one).
    """
    rows = rows[~rows["alone"] & rows["rank"].notna()].sort_values("point", kind="stable")
    first = rows.groupby("point", sort=False)["rank"].transform("min")
    leading = rows[rows["rank"].eq(first)].groupby("point", sort=False)["label"].agg(list)
    best: list[str] = []
    for labels in leading:
        best.append(best[-1] if best and best[-1] in labels else labels[0])
    winners = pd.Series(best, leading.index)
    number = winners.ne(winners.shift()).cumsum()
    rows = rows.assign(range=rows["point"].map(number), best=rows["point"].map(winners))
    found = []
    for _, part in rows.groupby("range"):
        name, points = part["best"].iloc[0], part["point"]
        values = part.pivot_table(index="point", columns="label", values="value", sort=False)
        ratios = values.div(values[name].where(values[name] > 0), axis=0).median()
        others = ratios.drop(name).dropna().sort_values(kind="stable")
        found.append(
            {
                **{"first": points.iloc[0], "last": points.iloc[-1], "settings": len(values)},
                **{"best": name, "value": values[name].median()},
                "second": others.index[0] if len(others) else "",
                "ratio": others.iloc[0] if len(others) else np.nan,
            }
        )
    columns = ["first", "last", "settings", "best", "value", "second", "ratio"]
    return pd.DataFrame(found, columns=columns)
