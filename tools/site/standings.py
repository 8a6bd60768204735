"""Where estimators stand: quantities of measured rows, as numbers with their intervals.

Numbers for the browser and text for tables come from here, so that both say the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from gradest.report import rank
from gradest.report.frames import budget
from gradest.statistics import Interval
from gradest.support import Quantity, interval, number, stated

GRADIENT = "log_alpha"  # what pages show; the atlas has the other parameters as well


class Suite(NamedTuple):
    """The reference results of a suite: all rows, and the measured ones with their ranks."""

    frame: pd.DataFrame
    rows: pd.DataFrame

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Suite":
        return cls(frame, with_ranks(frame))


def counted_bias(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns bias, bias_low and bias_high: the square that the mse of a mean includes.

    It is the mse of a mean of infinitely many estimates: zero where an estimator is found
    unbiased, though not the end of its interval.
    """
    endless = pd.Series(float("inf"), rows.index)
    return budget.mean_of(rows, endless).rename(columns=lambda name: name.replace("mse", "bias"))


def with_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with a `rank` by mse, and `ranked`, the number of rows that have one."""
    keys = ["task_label", "parameter", "dtype", "label"]
    places = rank(frame).drop_duplicates(keys)[[*keys, "rank"]]
    rows = frame[frame["status"] == "ok"].drop(columns="rank", errors="ignore")
    rows = rows.merge(places, how="left", on=keys)
    total = rows.groupby(["task_label", "parameter", "dtype"])["rank"].transform("count")
    return rows.assign(ranked=total)


def work(row: Mapping[str, Any]) -> Interval:
    """Variance × evaluations: the variance at equal evaluations of f."""
    return Interval.of(row, "variance") * float(row["evaluations"])


def shown(value: Interval) -> Quantity:
    """A number with its interval in brackets, or a number alone where it is exact."""
    low, high = float(value.low), float(value.high)
    estimate = float(value.estimate)
    if low == high:
        return stated(estimate) if abs(estimate) < 1e-3 else number(estimate)
    return interval(estimate, low, high)


def cells(row: Mapping[str, Any]) -> dict[str, Quantity]:
    """The quantities of a row that tables show."""
    return {
        "bias": shown(Interval.of(row, "relative_bias")),
        "variance": shown(Interval.of(row, "variance")),
        "work": shown(work(row)),
        "evaluations": number(float(row["evaluations"])),
    }


def skipped(frame: pd.DataFrame, estimator: str) -> Iterator[tuple[str, str]]:
    """Task and reason of every cell of an estimator that could not be measured."""
    rows = frame[(frame["estimator"] == estimator) & (frame["status"] != "ok")]
    for _, row in rows.drop_duplicates(["task_label", "reason"]).iterrows():
        yield str(row["task_label"]), str(row["reason"])
