"""The mse at a fixed budget: of a mean of estimates, and where one estimator overtakes another.

The mean of m independent estimates has the mse b² + v/m, b = ‖bias‖, and costs m c passes through
f.  So a biased method, cheap in noise, is ahead while budgets are small, and an unbiased one
overtakes it for good at

    b² + v_b c_b/B = v_u c_u/B,    B = (v_u c_u − v_b c_b)/b²

A pass is an evaluation of f, or a backward pass through one.  A backward pass repeats every
operation of f at least once, and at most a few times (Baur & Strassen, "The complexity of partial
derivatives", 1983); it is counted as one.
"""

import numpy as np
import pandas as pd

from gradest.report.frames import tables
from gradest.statistics import Interval, columns_of

COLUMNS = (
    *("label", "overtaken_by", "passes", "passes_of_competitor"),
    *columns_of("budget"),
    "when",
)


def passes(rows: pd.DataFrame) -> pd.Series:
    """The passes through f, forward and backward, of one estimate."""
    return rows["evaluations"] + rows["gradient_evaluations"].fillna(0)


def mean_of(rows: pd.DataFrame, estimates: pd.Series) -> pd.DataFrame:
    """The columns mse, mse_low and mse_high of the mean of so many estimates, for annotated rows.

    The mse of an estimator called unbiased leaves its bias out, which is noise; the interval
    includes the bias that it may have.
    """
    taken = rows["verdict"].ne("unbiased") | rows["bias_sq_low"].eq(rows["bias_sq_high"])
    square = rows["bias_sq"].where(taken, 0.0).clip(lower=0)
    low = rows["bias_sq_low"].clip(lower=0, upper=square)
    bias = Interval(square, low, rows["bias_sq_high"].clip(lower=square))
    variance = Interval.of(rows, "variance").map(lambda end: end / estimates)
    return pd.DataFrame((bias + variance).columns("mse"))


def crossovers(rows: pd.DataFrame) -> pd.DataFrame:
    """Where each biased row of a section is first overtaken by an unbiased one, in passes.

    No budget is smaller than the cost of one estimate of the competitor.  `when` is `always` where
    the competitor is better as soon as the budget pays for one of its estimates, also at the upper
    end of the interval, and `never` where it is better at no budget.  The interval is that of the
    pair, by the ends of the intervals that matter.
    """
    return crossovers_within(rows.assign(place=0)).drop(columns="place")


def crossovers_within(rows: pd.DataFrame) -> pd.DataFrame:
    """The `crossovers` of many sections, which the column `place` numbers, one after the other."""
    rows = rows.assign(passes=passes(rows))
    parts = [*columns_of("bias_sq"), *columns_of("variance")]
    usable = tables.usable_numbers(rows[["passes", *parts]]).notna().all(axis=1)
    rows = rows[rows["passes"].gt(0) & usable & rows["variance"].ge(0)]
    numbers = rows[["passes", *parts]].astype(float)
    sides = [rows["verdict"].eq(name).to_numpy() for name in ("biased", "unbiased")]
    pieces = []
    for place in rows.groupby("place", sort=False).indices.values():
        biased, unbiased = (place[side[place]] for side in sides)
        if len(biased) and len(unbiased):
            pieces.append(_first_crossovers(numbers, biased, unbiased))
    if not pieces:
        return pd.DataFrame(columns=["place", *COLUMNS])
    biased, unbiased, *ends = (np.concatenate(each) for each in zip(*pieces, strict=True))
    budget = Interval(*ends)
    least = numbers["passes"].to_numpy()[unbiased]
    when = np.where(budget.high <= least, "always", "")
    return pd.DataFrame(
        {
            "place": rows["place"].to_numpy()[biased],
            "label": rows["label"].to_numpy()[biased],
            "overtaken_by": rows["label"].to_numpy()[unbiased],
            "passes": rows["passes"].to_numpy()[biased],
            "passes_of_competitor": rows["passes"].to_numpy()[unbiased],
            **budget.columns("budget"),
            "when": np.where(np.isinf(budget.low), "never", when),
        }
    )


def _first_crossovers(
    numbers: pd.DataFrame, biased: np.ndarray, unbiased: np.ndarray
) -> tuple[np.ndarray, ...]:
    """For each biased row, by its position, that of the first to overtake it, and the budget."""

    def columns(name: str, places: np.ndarray, axis: int) -> Interval:
        return Interval(
            *(np.expand_dims(numbers[c].to_numpy()[places], axis) for c in columns_of(name))
        )

    def work(places: np.ndarray, axis: int) -> Interval:
        passes = np.expand_dims(numbers["passes"].to_numpy()[places], axis)
        return columns("variance", places, axis).map(lambda end: end * passes)

    least = numbers["passes"].to_numpy()[unbiased][None, :]
    square = columns("bias_sq", biased, 1).clipped(0.0)
    budgets = _ratio(work(unbiased, 0) - work(biased, 1), square).clipped(least)
    order = np.lexsort((budgets.low, budgets.estimate), axis=1)[:, 0]
    chosen = budgets.map(lambda end: end[np.arange(len(order)), order])
    return biased, unbiased[order], *chosen.ends


def _ratio(n: Interval, d: Interval) -> Interval:
    """n/d ≥ 0 of independent estimates, d ≥ 0, by inverting the interval of n − B d (MOVER-R).

    Donner & Zou, "Closed-form confidence intervals for functions of the normal mean and standard
    deviation", 2012.
    """
    low = _root(n, d, -1, n.estimate - n.low, d.high - d.estimate)
    high = _root(n, d, 1, n.high - n.estimate, d.estimate - d.low)
    return Interval(np.where(n.estimate > 0, _quotient(n.estimate, d.estimate), 0.0), low, high)


def _root(n: Interval, d: Interval, sign: int, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The B ≥ 0 where n − B d ± √(across² + (B along)²) is zero, with this sign.

    It falls with B; 0 where it is not positive at 0, infinite where it stays positive.
    """
    # (d² − along²) B² − 2 n d B + (n² − across²) = 0
    square, constant = d.estimate**2 - along**2, n.estimate**2 - across**2
    root = np.maximum((n.estimate * d.estimate) ** 2 - square * constant, 0.0) ** 0.5
    half = n.estimate * d.estimate + root
    top, bottom = (half, square) if sign > 0 else (constant, half)  # the other root cancels
    return np.where(n.estimate + sign * across <= 0, 0.0, _quotient(top, bottom))


def _quotient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Infinite where the divisor is not positive."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.inf), where=bottom > 0)
