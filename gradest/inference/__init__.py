"""What moments say: bias, variance, their intervals, and a verdict.

All intervals are at 95 %.  They rest on J independent batches of replicates (64 unless there are
too few replicates).  Batch statistics are averages of many independent terms, hence close to
normal whatever the estimator's own law, and their spread needs no formula for its fourth
moments or for the correlation of coordinates.  docs/measurement.md has it in one page.
"""

from typing import Any

from torch import Tensor

from gradest.inference.bias import detectable_length, squared_bias
from gradest.inference.intervals import (
    CONFIDENCE,
    Interval,
    mean_interval,
    reach_of_sum,
    total_variance,
)
from gradest.inference.joint import joint_test, largest_z
from gradest.inference.planning import bias_precision, replicates_needed, variance_precision
from gradest.moments import Moments

__all__ = [
    "BIASED_BELOW",
    "CONFIDENCE",
    "UNBIASED_WITHIN",
    "Interval",
    "describe",
    "detectable_length",
    "largest_z",
    "mean_interval",
    "reach_of_sum",
    "replicates_needed",
    "squared_bias",
    "total_variance",
    "verdict",
]

BIASED_BELOW = 0.01  # joint p under which an estimator is called biased
UNBIASED_WITHIN = 0.02  # relative bias that an estimator called unbiased cannot exceed

_AGAINST_EXACT = (
    *("gradient_norm", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm", "relative_bias"),
    *("bias_precision", "max_z", "p_value", "detectable_bias", "mse", "snr"),
)


def describe(
    moments: Moments,
    exact: Tensor | None,
    weight: Tensor,
    peak: float,
    resolution: float,
    reference: Moments | None = None,
) -> dict[str, Any]:
    """The statistical columns of a results row.

    `moments` [J, D] and `exact` [D] are with respect to log α; the row speaks of weight · ĝ.  Where
    `exact` is itself the mean of independent estimates, `reference` [J', D] holds their moments.
    """
    scaled = moments.scaled(weight)
    variance = total_variance(scaled)
    spread = {
        "variance": variance.estimate,
        "variance_low": variance.low,
        "variance_high": variance.high,
        "variance_precision": variance_precision(variance),
    }
    if exact is None:
        return {**dict.fromkeys(_AGAINST_EXACT, float("nan")), "verdict": "inconclusive", **spread}
    norm = float((exact * weight).norm())
    bias = squared_bias(
        scaled, exact * weight, None if reference is None else reference.scaled(weight)
    )
    bias_norm = max(bias.estimate, 0.0) ** 0.5
    joint = joint_test(moments, exact, weight, peak, resolution, BIASED_BELOW, reference)
    return {
        "gradient_norm": norm,
        "bias_sq": bias.estimate,
        "bias_sq_low": bias.low,
        "bias_sq_high": bias.high,
        "bias_norm": bias_norm,
        "relative_bias": _ratio(bias_norm, norm),
        "bias_precision": bias_precision(bias, norm),
        "max_z": joint.max_z,
        "p_value": joint.p_value,
        "detectable_bias": _ratio(joint.detectable, norm),
        "verdict": verdict(joint.p_value, bias, norm, joint.rounding),
        **spread,
        "mse": max(bias.estimate, 0.0) + variance.estimate,
        "snr": _ratio(norm**2, variance.estimate),
    }


def verdict(p_value: float, bias: Interval, gradient_norm: float, rounding: float = 0.0) -> str:
    """biased, unbiased or inconclusive.

    Unbiased is an equivalence test, the upper end of the interval against 2 % of ‖g‖ and what the
    arithmetic cannot resolve: a noisy estimator does not pass by being noisy, nor where the
    arithmetic resolves less than that margin.
    """
    margin = UNBIASED_WITHIN * gradient_norm
    if p_value < BIASED_BELOW:
        return "biased"
    resolved = rounding <= margin or gradient_norm == 0
    within = bias.high <= (margin + rounding) ** 2
    return "unbiased" if within and resolved else "inconclusive"


def _ratio(a: float, b: float) -> float:
    if b == 0:
        return 0.0 if a == 0 else float("inf")
    return a / b
