"""The value of a claim's expressions, with intervals, from the rows of one task.

An estimate from replicates has the interval and the degrees of freedom of its table; an enumerated
one is exact.  Several seeds of one cell are averaged; of several numbers of replicates the largest
counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from gradest.report.frames import curves, ranking, tables
from gradest.runs import Expression, Median, Quantity, Share, compute
from gradest.runs import Read as Readable
from gradest.statistics import (
    Interval,
    Sides,
    median_interval,
    median_test,
    share_interval,
    share_test,
    t_sf,
)

BIASES = ("bias", "relative_bias")


class Unmeasured(Exception):
    """A quantity that the run does not have, with the reason."""


@dataclass(frozen=True)
class Value:
    """An expression at one place."""

    interval: Interval
    freedom: float = math.inf  # the degrees of freedom that the interval rests on
    rounding: float = 0.0  # how far apart two equal numbers may be
    above_zero: float = math.nan  # of a bias: the p-value of the test that it is zero
    # A test of its own against a bound, in place of the one by the interval.
    test: Callable[[float], Sides] | None = None

    @property
    def exact(self) -> bool:
        return self.test is None and self.interval.low == self.interval.high

    @classmethod
    def exactly(cls, value: float) -> "Value":
        return cls(Interval.exactly(value))

    def combined(self, other: "Value", interval: Interval) -> "Value":
        """An interval that was computed from two values."""
        return Value(interval, min(self.freedom, other.freedom), max(self.rounding, other.rounding))

    def __add__(self, other: "Value") -> "Value":
        return self.combined(other, self.interval + other.interval)

    def __sub__(self, other: "Value") -> "Value":
        return self.combined(other, self.interval - other.interval)

    def __mul__(self, other: "Value") -> "Value":
        """One of them is a number."""
        number, quantity = (other, self) if other.exact else (self, other)
        return self.combined(other, quantity.interval * number.interval.estimate)

    def __truediv__(self, other: "Value") -> "Value":
        if other.exact and other.interval.estimate != 0:
            return self.combined(other, self.interval * (1 / other.interval.estimate))
        return self.combined(other, self.interval / other.interval)


Read = Callable[[Readable, pd.DataFrame], Value]


def evaluate(expression: Expression, rows: pd.DataFrame, read: Read) -> Value:
    """The value of an expression from rows of one task.  Raises Unmeasured."""
    return compute(expression, lambda each: read(each, rows), Value.exactly)


def rows_of(quantity: Quantity, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the estimator that a quantity names."""
    own = rows[rows["estimator"].eq(quantity.estimator)]
    if quantity.knobs:
        params = own["estimator_params"].map(tables.parse_knobs)
        matches = [all(p.get(k) == v for k, v in quantity.knobs.items()) for p in params]
        own = own[np.array(matches, dtype=bool)]
    return own


def measured(quantity: Quantity, rows: pd.DataFrame) -> Value:
    """A quantity of measurements, from the rows of one task.  Raises Unmeasured."""
    own = rows_of(quantity, rows)
    if own.empty:
        raise Unmeasured(f"{quantity.estimator} was not run there")
    lost = own[own["status"].ne("ok")]
    if not lost.empty:
        raise Unmeasured(f"{quantity.estimator} {lost['status'].iloc[0]}: {lost['reason'].iloc[0]}")
    most = own[own["replicates"].eq(own["replicates"].max())]
    values = [_of_row(quantity.name, row) for row in most.to_dict("records")]
    if any(math.isnan(value.interval.estimate) for value in values):
        raise Unmeasured(f"{quantity} has no value there")
    return _average(values)


def _of_row(name: str, row: dict) -> Value:
    interval, rounding = _interval_of(name, row), tables.resolution(row["dtype"])
    rounding *= max(map(abs, interval.ends))
    if row["method"] == "enumerated" and row["reference"] != "monte_carlo":
        return Value(interval, rounding=rounding)
    freedom = float(tables.freedom_of(pd.Series([row["replicates"]])).iloc[0])
    tested = row["p_value"] if name in BIASES else math.nan
    return Value(interval, freedom, rounding, tested)


def _interval_of(name: str, row: dict) -> Interval:
    """The quantity of a row, with its 95 % interval."""
    if name == "bias":
        return Interval.of(row, "bias_sq").root()
    if name in ("relative_bias", "best_scale", "relative_bias_rescaled", "variance", "mse"):
        return Interval.of(row, name)
    if name == "work_variance":
        return Interval.of(row, "variance") * row["evaluations"]
    if name == "snr":
        return Interval.exactly(row["gradient_norm"] ** 2) / Interval.of(row, "variance")
    if name in ("cosine", "value"):
        error = 0.0 if row["method"] == "enumerated" else row[f"{name}_se"]
        return Interval.normal(row[name], error)
    return Interval.exactly(row[name])


def _average(values: Sequence[Value]) -> Value:
    """The mean of measurements by several seeds; exact ones are the same, and taken once."""
    first = values[0]
    if len(values) == 1 or all(value.exact for value in values):
        return first
    total = first.interval
    for value in values[1:]:
        total = total + value.interval
    mean = total * (1 / len(values))
    tested = min(value.above_zero for value in values) * len(values)
    return Value(mean, sum(value.freedom for value in values), first.rounding, tested)


def evidence(value: Value, bound: float, logarithmic: bool) -> Sides:
    """On which side of a bound a value is; a ratio of positive numbers is compared by its log.

    Exact values are compared without chance: a p-value is 0 or 1, and both are 1 where the value
    equals the bound up to rounding.
    """
    if value.test is not None:
        return value.test(bound)
    estimate, low, high = value.interval.ends
    if value.exact:
        if abs(estimate - bound) <= value.rounding:
            return Sides(1.0, 1.0)
        return Sides(float(estimate > bound), float(estimate < bound))
    if bound == 0 and not math.isnan(value.above_zero):
        return Sides(1.0, value.above_zero)
    if logarithmic:
        with np.errstate(divide="ignore"):
            estimate, low, high, bound = (float(np.log(x)) for x in (estimate, low, high, bound))
    steps = float(ranking.quantile(np.array(value.freedom)))
    return Sides(
        _one_sided(bound - estimate, (high - estimate) / steps, value.freedom),
        _one_sided(estimate - bound, (estimate - low) / steps, value.freedom),
    )


def _one_sided(distance: float, error: float, freedom: float) -> float:
    if not math.isfinite(error) or error <= 0:
        return 1.0
    return float(t_sf(distance / error, freedom))


def metric(quantity: Quantity, points: pd.DataFrame) -> Value:
    """A metric of trainings of models, over their seeds, at its options.  Raises Unmeasured.

    Without a learning rate among the options it is that of the best one.
    """
    own = _trained(quantity, points, curves.best_rates)
    split = quantity.options.get("split", "test" if quantity.name != "gap" else "valid")
    return _mean(quantity, _at_its_step(quantity, own, split))


def descended(expression: Readable, points: pd.DataFrame, maximise: bool) -> Value:
    """A metric of descents, over their seeds: its mean, its median or a share of the seeds.

    Without a learning rate among the options it is that of the best one.  Raises Unmeasured, for a
    mean or a median also where there is one seed or where a seed has no number.
    """
    quantity = expression if isinstance(expression, Quantity) else expression.metric
    best = partial(curves.best_descents, maximise=maximise)
    own = _at_its_step(quantity, _trained(quantity, points, best), curves.ALONE)
    values = own["value"].to_numpy(dtype=float)
    if isinstance(expression, Share):
        holds = int(_COMPARISONS[expression.symbol](values, expression.bound).sum())
        interval = share_interval(holds, len(values))
        return Value(interval, test=partial(share_test, holds, len(values)))
    if np.isnan(values).any():
        lost = f"{int(np.isnan(values).sum())} of {len(values)} seeds"
        raise Unmeasured(f"{quantity} has no number for {lost}, which diverged")
    if len(values) == 1:
        raise Unmeasured(f"{quantity} has one seed, which does not show how seeds differ")
    if isinstance(expression, Median):
        return Value(median_interval(values), test=partial(median_test, values))
    return _mean(quantity, own)


_COMPARISONS = {"<=": np.less_equal, "<": np.less, ">=": np.greater_equal, ">": np.greater}


def _trained(
    quantity: Quantity, points: pd.DataFrame, best: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """The points of the trainings that a quantity names, at its learning rate or the best one."""
    own = rows_of(quantity, points)
    rate = quantity.options.get("learning_rate")
    own = best(own) if rate is None else own[own["learning_rate"].eq(rate)]
    if own.empty:
        raise Unmeasured(f"{quantity} was not trained")
    return own


def _at_its_step(quantity: Quantity, own: pd.DataFrame, split: str) -> pd.DataFrame:
    """The points of the metric at the step that a quantity names, or the last one: one a seed."""
    curve = own[own["split"].eq(split) & own["metric"].eq(quantity.name)]
    if curve.empty:
        where = f" of the split {split}" if split else ""
        raise Unmeasured(f"{quantity} has no values{where}")
    step = quantity.options.get("step", curve["step"].max())
    at = curve[curve["step"].eq(step)]
    if at.empty:
        raise Unmeasured(f"{quantity} was not evaluated at step {step}")
    return at


def _mean(quantity: Quantity, at: pd.DataFrame) -> Value:
    """The mean over seeds, with its t interval; of a single seed with the one that it has."""
    row = curves.average_over_seeds(at, at["split"].iloc[0], quantity.name).iloc[0]
    freedom = row["seeds"] - 1 if row["seeds"] > 1 else math.inf
    return Value(Interval(row["value"], row["low"], row["high"]), freedom)
