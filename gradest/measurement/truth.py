"""The true gradient that estimates are compared with, and its source."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.measurement import enumerated_truth
from gradest.measurement.objectives import closed_form
from gradest.measurement.parameters import LOG_ALPHA
from gradest.measurement.replicator import Replicator
from gradest.statistics import Moments, decode, encode


class Reference(NamedTuple):
    """An estimate of the truth: moments of independent replicates of an unbiased estimator."""

    estimator: str
    gradients: Mapping[str, Moments]  # [J, D] of log α, [J, r] of each group
    value: Moments  # [J, 1]

    def to_json(self) -> dict[str, Any]:
        """Plain data, bit by bit."""
        return {
            "estimator": self.estimator,
            "gradients": {name: moments.to_json() for name, moments in self.gradients.items()},
            "value": self.value.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Reference":
        gradients = {name: Moments.from_json(m) for name, m in data["gradients"].items()}
        return cls(data["estimator"], gradients, Moments.from_json(data["value"]))


class Truth(NamedTuple):
    """The true gradient with respect to log α and to each group of parameters, penalty included.

    `noise` holds the moments of the reference where the truth is estimated by one.
    """

    source: str  # exact, closed_form or monte_carlo
    value: Tensor  # [B]
    gradients: Mapping[str, Tensor]  # [D] of log α, [r] of each group
    spread: float  # from the smallest to the largest cost of a data point; 0 where unknown
    noise: Mapping[str, Moments]
    by: str  # the estimator of the reference, or an empty string

    def to_json(self) -> dict[str, Any]:
        """Plain data, bit by bit."""
        return {
            "source": self.source,
            "value": encode(self.value),
            "gradients": {name: encode(g) for name, g in self.gradients.items()},
            "spread": self.spread,
            "noise": {name: moments.to_json() for name, moments in self.noise.items()},
            "by": self.by,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Truth":
        return cls(
            data["source"],
            decode(data["value"]),
            {name: decode(g) for name, g in data["gradients"].items()},
            data["spread"],
            {name: Moments.from_json(m) for name, m in data["noise"].items()},
            data["by"],
        )


def exact_truth(replicator: Replicator, projections: Mapping[str, Tensor]) -> Truth | None:
    """The truth by enumeration, or else by the task's closed form; None without either."""
    if enumerated_truth.enumerable(replicator.problem):
        source = "exact"
        value, gradient, spread = enumerated_truth.exact_gradient(replicator.problem)
    else:
        source, spread = "closed_form", 0.0
        logits = replicator.problem.logits.detach().double().requires_grad_()
        closed = closed_form(replicator.task, logits, replicator.problem.f)
        if closed is None:
            return None
        (gradient,) = torch.autograd.grad(closed.sum(), logits)
        value = closed.detach()
    if not gradient.isfinite().all():  # some possible cost is not
        return None
    flat = (gradient + replicator.penalty_gradient).flatten()
    gradients = {LOG_ALPHA: flat} | {name: flat @ map_ for name, map_ in projections.items()}
    return Truth(source, value + replicator.penalty, gradients, spread, {}, "")


def truth_from_reference(reference: Reference) -> Truth:
    """The truth as the mean of the replicates of a reference, with their noise."""
    means = {name: moments.pooled.mean[0] for name, moments in reference.gradients.items()}
    value = reference.value.pooled.mean[0]
    return Truth("monte_carlo", value, means, 0.0, reference.gradients, reference.estimator)
