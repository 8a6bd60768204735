"""Comparison of two estimators on the same draws.

Noise that both share cancels in the comparison.  Where they share none nothing is lost, since
every interval comes from the spread over J independent batches of the quantity compared:

    log v_a/v_b:    delete-one jackknife over the batches
    E ĝ_a − E ĝ_b:  the moments of ĝ_a − ĝ_b, replicate by replicate
    ‖b_a‖ − ‖b_b‖:  from the intervals of both, with the correlation ρ of their noise along them

Efron & Stein, "The jackknife estimate of variance", 1981;
Zou & Donner, "Construction of confidence limits about effect measures: a general approach", 2008.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.measurement.arguments import check_arguments
from gradest.measurement.pairing import Side, draw
from gradest.measurement.parameters import LOG_ALPHA
from gradest.measurement.progress import display
from gradest.measurement.setup import isolated_randomness, title_of
from gradest.measurement.truth import exact_truth
from gradest.statistics import (
    CONFIDENCE,
    Interval,
    Moments,
    detectable_length,
    squared_bias,
    t_ppf,
    total_variance,
)
from gradest.support import interval, markup, number

POWER = 0.8  # of the tests, at the smallest detectable effects

_LARGEST = 700.0  # exp of more overflows


@dataclass(frozen=True)
class Comparison:
    """Estimator `a` against `b`, with respect to log α; every interval is at 95 %.

    `variance_ratio` is v_a/v_b, `work_ratio` that times the ratio of the evaluations of f: below
    one, a is better for equally many evaluations.  `apart` is ‖E ĝ_a − E ĝ_b‖, and
    `bias_difference` is ‖b_a‖ − ‖b_b‖ with the bias b = E ĝ − g, NaN where g is unknown.  A
    `detectable` ratio or distance is one that the test detects with a power of 80 %.  A `gain` is
    the factor by which an interval would be wider without pairing; NaN where nothing was paired.
    """

    a: str
    b: str
    task: str
    method: str  # paired; half_enumerated where one side is exact, enumerated where both are
    replicates: int  # of each side that is drawn
    gradient_norm: float
    variance_a: Interval
    variance_b: Interval
    evaluations_a: int
    evaluations_b: int
    variance_ratio: Interval  # its standard error is that of the logarithm
    work_ratio: Interval
    detectable_ratio: float
    variance_gain: float
    apart: Interval
    detectable_distance: float
    mean_gain: float
    bias_difference: Interval
    batches: int  # that the intervals rest on

    @property
    def variances_differ(self) -> bool:
        return not self.variance_ratio.low <= 1 <= self.variance_ratio.high

    @property
    def means_differ(self) -> bool:
        return self.apart.low > 0

    def row(self) -> dict[str, Any]:
        """Plain columns; an interval becomes x, x_low and x_high."""
        columns: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Interval):
                columns |= value.columns(name)
            else:
                columns[name] = value
        return columns

    def __str__(self) -> str:
        lines = self._lines.items()
        width = max(map(len, self._lines)) + 1
        return "\n".join([self._title, *(f"  {label:<{width}} {text}" for label, text in lines)])

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return markup.html_table((), list(self._lines.items()), 2, self._title)

    @property
    def _title(self) -> str:
        protocol = f"{self.replicates:,} replicates"
        if self.method == "enumerated":
            protocol = "all outcomes enumerated"
        return f"{self.a} against {self.b} on {self.task}, {protocol}, gradient in log α"

    @property
    def _lines(self) -> dict[str, str]:
        lines = {
            "variance ratio": interval(*self.variance_ratio.ends)
            + _detectable_note(
                self.variances_differ, self.variance_ratio, number(self.detectable_ratio)
            ),
            "at equal evaluations": f"{interval(*self.work_ratio.ends)} "
            f"({self.evaluations_a} against {self.evaluations_b} evaluations of f)",
            "difference of means": self._length(*self.apart.ends)
            + _detectable_note(
                self.means_differ, self.apart, self._length(*[self.detectable_distance] * 3)
            ),
            "difference of bias": self.bias_text,
        }
        if self.method == "paired":
            lines["gain by pairing"] = (
                f"intervals are narrower by factors of {number(self.variance_gain)} (variance "
                f"ratio) and {number(self.mean_gain)} (means)"
            )
        return lines

    @property
    def bias_text(self) -> str:
        """The difference of the lengths of the biases, with its interval."""
        return self._length(*self.bias_difference.ends)

    def _length(self, *parts: float) -> str:
        """A length with its interval: in percent of ‖g‖, where that is known and not zero."""
        if self.gradient_norm > 0:
            return f"{interval(*(100 * x / self.gradient_norm for x in parts))} % of ‖g‖"
        return interval(*parts)


def compare_pair(
    a: Estimator,
    b: Estimator,
    task: Task,
    *,
    replicates: int,
    enumerate_draws: bool | None,
    seed: int,
    adapt_steps: int | None,
    dtype: torch.dtype,
    device: str | torch.device,
    progress: bool | None,
) -> Comparison:
    """`gradest.compare` of two estimators on one task."""
    check_arguments(
        [a, b],
        task,
        replicates=replicates,
        seed=seed,
        device=device,
        adapt_steps=adapt_steps,
        enumerate_draws=enumerate_draws,
        dtype=dtype,
    )
    title = f"{a.name} against {b.name} on {task.name}"
    with display(title, progress), isolated_randomness(seed, a, b, task):
        sides = [Side(e, task, enumerate_draws, seed, adapt_steps, dtype, device) for e in (a, b)]
        difference = draw(sides, replicates, seed)
        for side in sides:
            side.check_cost_again()
        truth = exact_truth(sides[0].replicator, {})
    exact = sum(side.exact is not None for side in sides)
    if truth is not None:
        for side in sides:
            side.cost = max(side.cost, float(truth.value.abs().max()) + truth.spread)
    g = None if truth is None else truth.gradients[LOG_ALPHA]
    variances = [side.variance() for side in sides]
    ratio, detectable, gain = _ratio(sides, variances)
    distance, detectable_distance = _mean_difference(sides, difference)
    cost = [side.evaluations for side in sides]
    work = cost[0] / cost[1] if cost[1] else math.nan
    return Comparison(
        a=title_of(a),
        b=title_of(b),
        task=title_of(task),
        method=("paired", "half_enumerated", "enumerated")[exact],
        replicates=0 if difference is None else replicates,
        gradient_norm=math.nan if g is None else float(g.norm()),
        variance_a=variances[0],
        variance_b=variances[1],
        evaluations_a=cost[0],
        evaluations_b=cost[1],
        variance_ratio=ratio,
        work_ratio=(ratio * work)._replace(standard_error=ratio.standard_error),
        detectable_ratio=detectable,
        variance_gain=math.nan if exact else gain,
        apart=distance,
        detectable_distance=detectable_distance,
        mean_gain=math.nan if exact else _mean_gain(variances, difference),
        bias_difference=Interval.unknown() if g is None else _bias_difference(sides, g),
        batches=max(1 if side.exact else len(side.moments.count) for side in sides),
    )


def _ratio(sides: Sequence[Side], variances: Sequence[Interval]) -> tuple[Interval, float, float]:
    """v_a/v_b, the smallest detectable ratio, and the gain by pairing.

    Two variances of zero have the ratio one.
    """
    a, b = (v.estimate for v in variances)
    if a == 0 or b == 0:
        return Interval.exactly(1.0 if a == b else math.inf if b == 0 else 0.0), 1.0, math.nan
    logs = [side.log_variances() for side in sides]
    error, freedom = _jackknife(logs[0] - logs[1]), max(map(len, logs)) - 1
    if error == 0:
        return Interval.exactly(a / b), 1.0, math.inf
    quantile, power = (t_ppf(p, freedom) for p in ((1 + CONFIDENCE) / 2, POWER))
    factor = math.exp(min(quantile * error, _LARGEST))
    return (
        Interval(a / b, a / b / factor, a / b * factor, error),
        math.exp(min((quantile + power) * error, _LARGEST)),
        math.hypot(*map(_jackknife, logs)) / error,
    )


def _jackknife(leave_one_out: np.ndarray) -> float:
    """The standard error of a statistic from its values without each of J batches."""
    batches = len(leave_one_out)
    squares = np.square(leave_one_out - leave_one_out.mean())
    return float(((batches - 1) / batches * squares.sum()) ** 0.5)


def _mean_difference(sides: Sequence[Side], difference: Moments | None) -> tuple[Interval, float]:
    """‖E ĝ_a − E ĝ_b‖, and the smallest that the test detects with a power of 80 %."""
    rounding = max(side.rounding() for side in sides)
    gap = float((sides[0].mean() - sides[1].mean()).norm())
    if difference is None:
        return Interval.exactly(gap if gap > rounding else 0.0), 0.0
    if total_variance(difference).estimate <= rounding**2:
        return Interval.exactly(gap if gap > rounding else 0.0), 0.0
    square = squared_bias(difference, torch.zeros_like(difference.mean[0]))
    return square.root(), detectable_length(difference, POWER)


def _mean_gain(variances: Sequence[Interval], difference: Moments) -> float:
    """√(v_a + v_b) over the spread of ĝ_a − ĝ_b."""
    spread = total_variance(difference).estimate
    unpaired = sum(v.estimate for v in variances)
    return (unpaired / spread) ** 0.5 if spread > 0 else math.inf if unpaired > 0 else math.nan


def _bias_difference(sides: Sequence[Side], g: Tensor) -> Interval:
    """‖b_a‖ − ‖b_b‖; the distances to facing ends add like vectors at the angle arccos ρ."""
    (a, noise_a), (b, noise_b) = (side.bias(g) for side in sides)
    rho = 0.0
    if noise_a.std() > 0 and noise_b.std() > 0:
        rho = float(np.corrcoef(noise_a, noise_b)[0, 1])

    def distance(x: float, y: float) -> float:
        return max(x**2 + y**2 - 2 * rho * x * y, 0.0) ** 0.5

    value = a.estimate - b.estimate
    below = distance(a.estimate - a.low, b.high - b.estimate)
    above = distance(a.high - a.estimate, b.estimate - b.low)
    return Interval(value, value - below, value + above)


def _detectable_note(significant: bool, interval_: Interval, detectable: str) -> str:
    if significant:
        return ""
    if interval_.low == interval_.high:
        return ": no difference"
    return f": no significant difference; smallest detectable: {detectable}"
