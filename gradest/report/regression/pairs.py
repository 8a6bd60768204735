"""The changes between two measurements of the same cell, each with its own draws.

    variances:  log v'/v, as in `gradest.report.frames.ranking`
    means:      the joint test of a bias, with the other run's mean, and its noise, for the truth
    biases:     ‖b'‖ − ‖b‖, whose interval comes from the ends of both that face each other

Draws that both runs share make all of this conservative: the noise that they have in common is
counted twice, where it cancels.

Where the estimate never varied in one run, the variances are compared as counts of rare events: all
n outcomes of the largest size are in the same run.

Przyborowski & Wilenski, "Homogeneity of results in testing samples from Poisson series", 1940.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.measurement import ENUMERATED, LOG_ALPHA, SCALES, Measurement
from gradest.report.frames import ranking
from gradest.statistics import (
    UNBIASED_WITHIN,
    Arithmetic,
    Interval,
    Joint,
    Moments,
    Noise,
    joint_test,
    squared_bias,
)

RATIO, DIFFERENCE = "ratio", "difference"

_UNKNOWN = Interval.unknown()


def undetectable(level: float) -> float:
    return math.nan


class Change(NamedTuple):
    """The change of one quantity of a cell from `base` to `other`, a ratio or a difference.

    A change without a p-value is not random.  `direction` is the sign of the change, 0 where that
    is neither better nor worse.  `detectable` maps the level of a test to the smallest change that
    the test would detect with 80 % power.
    """

    quantity: str
    parameter: str
    base: Interval
    other: Interval
    scale: str
    change: Interval
    same: bool  # up to rounding
    direction: int = 0
    p_value: float = math.nan
    detectable: Callable[[float], float] = undetectable
    reason: str = ""


def pooled(measurements: Sequence[Measurement]) -> Measurement:
    """The measurements of several seeds as one, the batches side by side.

    What was enumerated is the same for every seed, and taken once.
    """
    for each in measurements:
        if each.method == ENUMERATED:
            return each
    first = measurements[0]
    return dataclasses.replace(
        first,
        gradients={
            name: Moments.stacked([m.gradients[name] for m in measurements])
            for name in first.gradients
        },
        objective=Moments.stacked([m.objective for m in measurements]),
        cosines=Moments.stacked([m.cosines for m in measurements]),
        peaks={name: max(m.peaks[name] for m in measurements) for name in first.peaks},
    )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two finite measurements of a cell, with respect to `parameters`."""

    base: Measurement
    other: Measurement
    parameters: Sequence[str]

    def changes(self) -> Iterator[Change]:
        """The changes of the costs, the mean, and in each parameter the variance and the bias.

        Also that of the exact gradient, where there is one.
        """
        yield from self._costs()
        yield from self._gradient
        yield self._mean
        for parameter in self.parameters:
            if all(parameter in side.parameters for side in self._sides):
                yield self._variance(parameter)
                yield from self._bias(parameter)

    def norm(self, parameter: str) -> float:
        """‖g‖ in the base; NaN where it is unknown."""
        return self._rows(parameter)[0]["gradient_norm"] if parameter else math.nan

    @property
    def _sides(self) -> tuple[Measurement, Measurement]:
        return self.base, self.other

    def _rows(self, parameter: str) -> list[dict[str, Any]]:
        """The rows of both sides in one parameter."""
        if parameter not in self._rows_by_parameter:
            self._rows_by_parameter[parameter] = [side.row(parameter) for side in self._sides]
        return self._rows_by_parameter[parameter]

    @cached_property
    def _rows_by_parameter(self) -> dict[str, list[dict[str, Any]]]:
        return {}

    @property
    def _resolution(self) -> float:
        return max(side.resolution for side in self._sides)

    @property
    def _enumerated(self) -> bool:
        return all(side.method == ENUMERATED for side in self._sides)

    def _alike(self, exactly: bool, nearly: bool) -> bool:
        """Whether numbers are equal up to rounding, in a dtype that resolves a relevant bias."""
        return exactly or (nearly and self._resolution < UNBIASED_WITHIN)

    def _costs(self) -> Iterator[Change]:
        for quantity in ("evaluations", "gradient_evaluations"):
            a, b = (float(getattr(side, quantity)) for side in self._sides)
            ends = (Interval.exactly(x) for x in (a, b, b - a))
            base, other, change = ends
            yield Change(quantity, "", base, other, DIFFERENCE, change, a == b, sign(b - a))

    @cached_property
    def _gradient(self) -> list[Change]:
        """A change of the exact gradient, where the task itself changed."""
        truths = [side.truth for side in self._sides]
        if any(truth is None or truth.noise for truth in truths):
            return []
        a, b = (truth.gradients[LOG_ALPHA] for truth in truths)
        norms = [Interval.exactly(float(g.norm())) for g in (a, b)]
        if a.shape != b.shape:
            distance, why = math.nan, f"{len(a)} coordinates, then {len(b)}"
        else:
            distance, why = float((b - a).norm()), "the exact gradient changed"
            cost = max(side.cost for side in self._sides)
            if distance <= self._resolution * max(float(a.norm()), float(b.norm()), cost):
                return []
        change = Interval.exactly(distance)
        return [Change("gradient", LOG_ALPHA, *norms, DIFFERENCE, change, False, reason=why)]

    @cached_property
    def _mean(self) -> Change:
        """‖E ĝ' − E ĝ‖ in log α, of which all other means are linear maps."""
        a, b = (side.gradient for side in self._sides)
        lengths = [_length(moments) for moments in (a, b)]
        if a.mean.shape[1] != b.mean.shape[1]:
            why = f"{a.mean.shape[1]} coordinates, then {b.mean.shape[1]}"
            return Change(*_MEAN, *lengths, DIFFERENCE, _UNKNOWN, False, reason=why)
        means = [moments.pooled.mean[0] for moments in (a, b)]
        test = self._joint(_ANY)
        return Change(
            *_MEAN,
            *lengths,
            DIFFERENCE,
            squared_bias(b, means[0], a).root(),
            self._alike(torch.equal(*means), test.max_z == 0),
            p_value=math.nan if self._enumerated else test.p_value,
            detectable=lambda level: self._joint(level).detectable,
        )

    def _joint(self, level: float) -> Joint:
        """The test of a bias, of the other mean, moved to where the truth of both would be.

        The deviation is projected on the true gradient.  Where that is unknown the mean of both
        runs stands for it, so weighted that, for covariances in proportion, it is independent of
        their difference: on the mean of one run alone that run's noise would fall on itself.
        """
        a, b = (side.gradient for side in self._sides)
        mean = a.pooled.mean[0]
        if self.base.truth is not None:
            towards = self.base.truth.gradients[LOG_ALPHA]
        else:
            noise = [_noise(moments) for moments in (a, b)]
            share = noise[0] / sum(noise) if any(noise) else 0.5
            towards = mean + share * (b.pooled.mean[0] - mean)
        moved = Moments(b.count, b.mean + (towards - mean), b.m2)
        peak = max(side.peaks[LOG_ALPHA] for side in self._sides)
        weight = torch.ones_like(mean)
        cost = max(side.cost for side in self._sides)
        rounding = Arithmetic(self._resolution, cost).of_dtype(moved, towards)
        return joint_test(moved, towards, weight, peak, rounding, level, a)

    def _variance(self, parameter: str) -> Change:
        a, b = (Interval.of(row, "variance") for row in self._rows(parameter))
        moved = abs(b.estimate**0.5 - a.estimate**0.5)
        untested = Change(
            *("variance", parameter, a, b, RATIO, _ratio(a, b, self._enumerated)),
            self._alike(a.estimate == b.estimate, moved <= self._rounding(parameter)),
            sign(b.estimate - a.estimate),
        )
        if self._enumerated or a.estimate == b.estimate == 0:
            return untested
        if a.estimate == 0 or b.estimate == 0:
            return untested._replace(p_value=self._rare(), detectable=lambda level: math.inf)
        difference = math.log(b.estimate) - math.log(a.estimate)
        each = [ranking.log_errors(*x.ends, f) for x, f in zip((a, b), self._freedom, strict=True)]
        error, freedom = self._facing(each, difference > 0)
        return untested._replace(
            p_value=float(ranking.p_value(difference, error, freedom)),
            detectable=lambda level: ranking.as_ratio(
                ranking.detectable_difference(error, freedom, level)
            ),
        )

    def _bias(self, parameter: str) -> Iterator[Change]:
        """None where the truth is unknown.

        Of one task a bias changes only if the mean does: the p-value is the larger of both.
        """
        if any(side.truth is None for side in self._sides):
            return
        a, b = (Interval.of(row, "bias_sq").root() for row in self._rows(parameter))
        change = b - a
        untested = Change(
            *("bias", parameter, a, b, DIFFERENCE, change),
            self._mean.same and not self._gradient,
            sign(change.estimate),
        )
        if self._enumerated:
            near = abs(change.estimate) <= self._rounding(parameter)
            yield untested._replace(same=self._alike(change.estimate == 0, near))
            return
        each = []
        for x, freedom in zip((a, b), self._freedom, strict=True):
            steps = ranking.quantile(freedom)
            each.append(((x.high - x.estimate) / steps, (x.estimate - x.low) / steps))
        error, freedom = self._facing(each, change.estimate > 0)
        widest = max(self._facing(each, rising) for rising in (True, False))
        p = float(ranking.p_value(change.estimate, error, freedom))
        yield untested._replace(
            p_value=p if self._gradient else float(np.fmax(p, self._mean.p_value)),
            detectable=lambda level: ranking.detectable_difference(*widest, level),
        )

    def _rounding(self, parameter: str) -> float:
        """What rounding of the estimates can do to a standard deviation, or to a mean's length."""
        sizes = [
            row["variance"] + float(_mean_of(side, parameter).square().sum())
            for side, row in zip(self._sides, self._rows(parameter), strict=True)
        ]
        cost = max(side.cost for side in self._sides) if parameter in SCALES else 0.0
        return self._resolution * max(max(sizes) ** 0.5, cost)

    @property
    def _freedom(self) -> list[int]:
        return [max(len(side.gradient.count) - 1, 1) for side in self._sides]

    def _facing(self, each: Sequence[Sequence[float]], rising: bool) -> tuple[float, float]:
        """Error and freedom, from the errors upwards and downwards of both sides."""
        base, other = zip(each, self._freedom, strict=True)
        (smaller, f), (larger, g) = (base, other) if rising else (other, base)
        error, freedom = ranking.combined_error(smaller[0], f, larger[1], g)
        return float(error), float(freedom)

    def _rare(self) -> float:
        """The p-value of a variance that is zero in one run.

        A variance v in D coordinates takes n = R v/(D peak²) outcomes of the largest size at least.
        That all of them are in this run is, given their number, a matter of the replicates.
        """
        variances = [row["variance"] for row in self._rows(LOG_ALPHA)]
        seen, blind = self._sides if variances[0] > 0 else self._sides[::-1]
        if blind.method == ENUMERATED:
            return 0.0
        rate = max(variances) / seen.mean.numel() / seen.peaks[LOG_ALPHA] ** 2
        if seen.method == ENUMERATED:
            return min(1.0, 2 * math.exp(-blind.replicates * rate))
        share = seen.replicates / (seen.replicates + blind.replicates)
        return min(1.0, 2 * share ** (seen.replicates * rate))


_MEAN = ("mean", LOG_ALPHA)
_ANY = 0.5  # a level, where only the p-value is used


def sign(x: float) -> int:
    return int(x > 0) - int(x < 0)


def _ratio(a: Interval, b: Interval, exact: bool) -> Interval:
    """b/a; one where both are zero."""
    if a.estimate == b.estimate == 0:
        return Interval.exactly(1.0)
    ratio = b.estimate / a.estimate if a.estimate > 0 else math.inf
    if exact:
        return Interval.exactly(ratio)
    if a.estimate == 0 or b.estimate == 0:  # the estimate never varied in one run
        return Interval(ratio, 0.0, math.inf)
    return b / a


def _noise(moments: Moments) -> float:
    """tr Cov of the mean."""
    noise = Noise.of(moments)
    return 0.0 if noise is None else noise.t1


def _length(moments: Moments) -> Interval:
    """‖E ĝ‖."""
    return squared_bias(moments, torch.zeros_like(moments.mean[0])).root()


def _mean_of(side: Measurement, parameter: str) -> Tensor:
    if parameter in SCALES:
        return side.mean * side.weight(parameter)
    return side.gradients[parameter].pooled.mean[0]
