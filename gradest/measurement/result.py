"""The result of a measurement: the moments of one estimator on one task, and its statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradest.errors import UsageError
from gradest.measurement import notebook
from gradest.measurement.adaptation import AdaptationStep
from gradest.measurement.dtype_error import DtypeError
from gradest.measurement.parameters import LOG_ALPHA, SCALES
from gradest.measurement.precision import Precision, shortfall
from gradest.measurement.truth import Truth
from gradest.statistics import (
    Arithmetic,
    Interval,
    Moments,
    decode,
    describe,
    encode,
    mean_interval,
    resolution,
)
from gradest.support import interval

ENUMERATED = "enumerated"

_SCALARS = (
    *("resolution", "method", "outcomes", "zero", "nonfinite", "overflow", "evaluations"),
    *("gradient_evaluations", "memory", "seconds", "adapt_steps"),
)


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measurement of one estimator on one task.

    `mean`, `variance`, `standard_error` and `exact` are [B, N, K], in float64 on the CPU and with
    respect to log α; `exact` is None where the true gradient is unknown.  `row` also gives the
    statistics for α and for the groups of parameters of the task.
    """

    gradients: Mapping[str, Moments]  # [J, B·N·K] of log α, [J, r] of each group of parameters
    objective: Moments  # [J, 1]
    cosines: Moments  # [J', P], with the true gradient, in the order of `parameters`
    logits: Tensor  # [B, N, K]
    truth: Truth | None
    means: Mapping[str, Tensor]  # [P], with respect to each group's own coordinates
    peaks: Mapping[str, float]  # largest coordinate that occurred, or that an unseen cost can give
    resolution: float  # relative rounding of sums in the dtype that the estimates were computed in
    method: str  # monte_carlo or enumerated
    outcomes: int | None  # that were enumerated
    precision: Precision | None  # as requested
    zero: float  # share of the estimates that are zero throughout
    nonfinite: float  # share of those with a NaN or an infinity
    overflow: float  # share of those with an infinity
    drift: DtypeError
    evaluations: int  # forward evaluations of f, per estimate
    gradient_evaluations: int  # those of them that a backward pass goes through
    memory: float  # bytes at the peak, per estimate
    seconds: float  # per estimate
    adapt_steps: int
    adaptation: tuple[AdaptationStep, ...]
    title: str = ""  # estimator and task; a record has them in its cell
    drawn_because: str = ""  # why the draws were not enumerated
    # The columns that identify the cell; a record has them beside its measurement.
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        row = self.row()
        if self.nonfinite:
            return (
                f"<Measurement: {100 * self.nonfinite:.3g} % of the estimates are NaN or infinite>"
            )
        bias = Interval.of(row, "bias_sq").root()
        variance = Interval.of(row, "variance")
        protocol = f"{self.outcomes} outcomes" if self.outcomes else f"{self.replicates} replicates"
        return (
            f"<Measurement in log α: {row['verdict']}, bias {interval(*bias.ends)} for a gradient "
            f"of {row['gradient_norm']:.4g}, variance {interval(*variance.ends)}, {protocol}>"
        )

    def _repr_html_(self) -> str:
        """A table with a line for each parameter, for notebooks."""
        rows = [self.row(parameter) for parameter in self.parameters]
        return notebook.measurement_table(self.title, rows)

    @property
    def gradient(self) -> Moments:
        """The moments of the gradient with respect to log α: [J, B·N·K]."""
        return self.gradients[LOG_ALPHA]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names that `row` takes."""
        return (*SCALES, *(name for name in self.gradients if name != LOG_ALPHA))

    @property
    def replicates(self) -> int:
        """The number of estimates drawn: 0 where all outcomes were enumerated."""
        return 0 if self.method == ENUMERATED else int(self.gradient.count.sum())

    @property
    def mean(self) -> Tensor:
        return self.gradient.pooled.mean[0].reshape(self.logits.shape)

    @property
    def variance(self) -> Tensor:
        """The variance of one estimate, for each coordinate."""
        m2 = self.gradient.pooled.m2[0]
        return (m2 / max(self.replicates - 1, 1)).reshape(self.logits.shape)

    @property
    def standard_error(self) -> Tensor:
        """The standard error of the mean, for each coordinate."""
        if self.method == ENUMERATED:
            return torch.zeros_like(self.logits)
        return (self.variance / self.replicates).sqrt()

    @property
    def exact(self) -> Tensor | None:
        if self.truth is None:
            return None
        return self.truth.gradients[LOG_ALPHA].reshape(self.logits.shape)

    @property
    def exact_value(self) -> float | None:
        return None if self.truth is None else float(self.truth.value.mean())

    @property
    def value(self) -> float:
        """The mean objective, averaged over the data points."""
        return mean_interval(self.objective).estimate

    def row(self, parameter: str = LOG_ALPHA) -> dict[str, Any]:
        """The columns of a results row, with respect to one of `parameters`.

        First those that identify the cell, task, estimator, their knobs as JSON, seed and dtype,
        then the measured ones, under the names in measurements.parquet; all but the time.

        Raises UsageError for any other name.
        """
        if parameter not in self.parameters:
            raise UsageError(
                f"parameter = {parameter!r}; expected one of {', '.join(self.parameters)}"
            )
        points, latents, categories = self.logits.shape
        columns = {
            **self.identity,
            "parameter": parameter,
            "batch": points,
            "latents": latents,
            "categories": categories,
            "replicates": self.replicates,
            "outcomes": self.outcomes,
            "adapt_steps": self.adapt_steps,
            "method": self.method,
            "reference": None if self.truth is None else self.truth.source,
            "reference_by": None if self.truth is None else self.truth.by,
            "zero": self.zero,
            "nonfinite": self.nonfinite,
            "overflow": self.overflow,
            "drift": self.drift.mean,
            "drift_se": self.drift.standard_error,
            "evaluations": self.evaluations,
            "gradient_evaluations": self.gradient_evaluations,
            "memory": self.memory,
        }
        if self.nonfinite:  # they have no mean
            note = "some estimates are NaN or infinite"
            return columns | {"verdict": "inconclusive", "note": note}
        value = mean_interval(self.objective)
        cosine = mean_interval(self.cosines.column(self.parameters.index(parameter)))
        statistics = self._statistics(parameter)
        return columns | {
            **statistics,
            "work_variance": statistics["variance"] * self.evaluations,
            "precision": shortfall(self.precision, statistics),
            "cosine": cosine.estimate,
            "cosine_se": cosine.standard_error,
            "value": value.estimate,
            "value_se": value.standard_error,
            "exact_value": self.exact_value,
        }

    def weight(self, parameter: str) -> Tensor:
        """The factors by which ∂/∂log α gives ∂/∂log α or ∂/∂α: [B, N, K]."""
        return SCALES[parameter](self.logits)

    def _statistics(self, parameter: str) -> dict[str, Any]:
        name = parameter if parameter in self.gradients else LOG_ALPHA
        moments = self.gradients[name]
        scaled = parameter in SCALES
        size = moments.mean.shape[1]
        weight = self.weight(parameter).flatten() if scaled else torch.ones(size).double()
        exact = None if self.truth is None else self.truth.gradients[name]
        noise = None if self.truth is None else self.truth.noise.get(name)
        arithmetic = Arithmetic(self.resolution, self.cost, self._negligible(name, weight))
        columns = describe(moments, exact, weight, self.peaks[name], arithmetic, noise)
        return {
            "coordinates": size,
            "reference_se": _relative_error(noise, weight, columns["gradient_norm"]),
            **columns,
        }

    @property
    def cost(self) -> float:
        """The size |f| of the costs: |E f| plus their range, or the root mean square of values."""
        size = float(self.objective.mean_square) ** 0.5
        if self.truth is None:
            return size
        return max(size, float(self.truth.value.abs().max()) + self.truth.spread)

    def _negligible(self, name: str, weight: Tensor) -> float:
        """The length that rounding gives to a true gradient of zero, with respect to the logits.

        The terms of its sum, E |f (z_k − π_k)|, are at most |f| 2 π_k (1 − π_k).
        """
        if name != LOG_ALPHA:
            return 0.0
        pi = self.logits.softmax(-1)
        score = (2 * pi * (1 - pi)).flatten()
        return resolution(torch.float64) * self.cost * float((score * weight).norm())

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` restores all but title and identity, bit by bit."""
        return {
            "gradients": {name: m.to_json() for name, m in self.gradients.items()},
            "objective": self.objective.to_json(),
            "cosines": self.cosines.to_json(),
            "logits": encode(self.logits),
            "means": {name: encode(mean) for name, mean in self.means.items()},
            "truth": None if self.truth is None else self.truth.to_json(),
            "peaks": dict(self.peaks),
            "asked": None if self.precision is None else self.precision.model_dump(),
            "drift": list(self.drift),
            "adaptation": [list(step) for step in self.adaptation],
            "drawn_because": self.drawn_because,
            **{name: getattr(self, name) for name in _SCALARS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Measurement":
        return cls(
            gradients={name: Moments.from_json(m) for name, m in data["gradients"].items()},
            objective=Moments.from_json(data["objective"]),
            cosines=Moments.from_json(data["cosines"]),
            logits=decode(data["logits"]),
            means={name: decode(mean) for name, mean in data["means"].items()},
            truth=None if data["truth"] is None else Truth.from_json(data["truth"]),
            peaks=data["peaks"],
            precision=None if data["asked"] is None else Precision(**data["asked"]),
            drift=DtypeError(*data["drift"]),
            adaptation=tuple(AdaptationStep(*step) for step in data["adaptation"]),
            drawn_because=data.get("drawn_because", ""),
            **{name: data[name] for name in _SCALARS},
        )


def _relative_error(noise: Moments | None, weight: Tensor, norm: float) -> float:
    """The standard error of the whole reference, relative to ‖g‖."""
    if noise is None or norm == 0:
        return 0.0
    pooled = noise.scaled(weight).pooled
    replicates = float(pooled.count[0])
    return (float(pooled.m2.sum()) / (replicates - 1) / replicates) ** 0.5 / norm
