"""The statistical columns of a results row, from moments and the truth."""

import math
from typing import Any

import torch
from torch import Tensor

from gradest.statistics.bias import squared_bias
from gradest.statistics.intervals import Interval, columns_of, total_variance
from gradest.statistics.moments import Moments
from gradest.statistics.planning import bias_precision, replicates_to_decide, variance_precision
from gradest.statistics.rescaling import Rescaling, best_rescaling
from gradest.statistics.rounding import Arithmetic
from gradest.statistics.unbiasedness import joint_test
from gradest.statistics.verdicts import BIASED_BELOW, verdict

_SPREAD = ("variance", "variance_low", "variance_high", "variance_precision")
_AGAINST_EXACT = (
    *("gradient_norm", "scale", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm"),
    *("relative_bias", "rounding", "bias_precision", "max_z", "p_value", "detectable_bias"),
    *columns_of("best_scale"),
    *columns_of("relative_bias_rescaled"),
    *("mse", "snr"),
)
_OVERFLOW = "the squares of these gradients are too large for float64"
_UNDERFLOW = "the squares of these gradients are too small for float64"
# The allowance is for sums of very many terms in the dtype.  A bias above this, relative to the
# size of the terms, gets a note.
_REMARKABLE = 16 * torch.finfo(torch.float64).eps
_NO_RESCALING = Rescaling(Interval.unknown(), Interval.unknown())  # where g is zero
_LENGTHS = ("gradient_norm", "scale", "bias_norm", "rounding")
_SQUARES = ("bias_sq", "bias_sq_low", "bias_sq_high", "variance", "variance_low", "variance_high")


def describe(
    moments: Moments,
    exact: Tensor | None,
    weight: Tensor,
    peak: float,
    arithmetic: Arithmetic,
    reference: Moments | None = None,
) -> dict[str, Any]:
    """The statistical columns of a results row.

    `moments` [J, D] and `exact` [D] are with respect to log α; the columns are those of
    weight · ĝ.  Where `exact` is itself the mean of independent estimates, `reference` [J', D]
    holds their moments.

    A row is inconclusive, with a note, where its numbers do not exist, such as ∂/∂α at α = 0, or
    overflow.
    """
    if not weight.isfinite().all():
        zeros = int((~weight.isfinite()).sum())
        return _undefined_columns(
            f"∂/∂α = (1/α) ∂/∂log α does not exist where α = 0, as it is in {zeros} of "
            f"{len(weight)} coordinates"
        )
    # In units of the largest coordinate: with 1/α in it, its fourth power may overflow.  Powers
    # of two are exact.
    largest = _largest(moments.scaled(weight), exact, weight)
    if not math.isfinite(largest):
        return _undefined_columns(_OVERFLOW)
    unit = 2.0 ** math.frexp(largest)[1]
    arithmetic = arithmetic._replace(negligible=arithmetic.negligible / unit)
    columns = _columns(moments, exact, weight / unit, peak, arithmetic, reference)
    columns |= {name: columns[name] * unit for name in _LENGTHS}
    columns |= {name: columns[name] * unit * unit for name in _SQUARES}
    columns["mse"] = max(columns["bias_sq"], 0.0) + columns["variance"]
    numbers = [columns[name] for name in (*_LENGTHS, *_SQUARES)]
    if any(math.isinf(x) for x in numbers) or math.isnan(columns["variance"]):
        return _undefined_columns(_OVERFLOW if unit > 1 else _UNDERFLOW)
    return columns


def _largest(scaled: Moments, exact: Tensor | None, weight: Tensor) -> float:
    """The largest root mean square or true gradient of a coordinate; a weight where all are 0."""
    sizes = [scaled.mean_square.max().sqrt()]
    if exact is not None:
        sizes.append((exact * weight).abs().max())
    return float(max(sizes)) or float(weight.max())


def _undefined_columns(note: str) -> dict[str, Any]:
    empty = dict.fromkeys((*_AGAINST_EXACT, *_SPREAD), math.nan)
    return empty | {"verdict": "inconclusive", "note": note}


def _columns(
    moments: Moments,
    exact: Tensor | None,
    weight: Tensor,
    peak: float,
    arithmetic: Arithmetic,
    reference: Moments | None,
) -> dict[str, Any]:
    scaled = moments.scaled(weight)
    variance = total_variance(scaled)
    precision = {"variance_precision": variance_precision(variance)}
    spread = variance.columns("variance") | precision
    if exact is None:
        unknown = dict.fromkeys(_AGAINST_EXACT, math.nan)
        note = "the true gradient is unknown"
        return {**unknown, **spread, "verdict": "inconclusive", "note": note}
    truth, noise = exact * weight, None if reference is None else reference.scaled(weight)
    norm = float(truth.norm())
    bias = squared_bias(scaled, truth, noise)
    bias_norm = max(bias.estimate, 0.0) ** 0.5
    allowance = arithmetic.allowance(moments, exact)
    joint = joint_test(moments, exact, weight, peak, allowance, BIASED_BELOW, reference)
    length = float(weight.norm())
    unresolved, rounding = allowance * length, arithmetic.of_dtype(moments, exact) * length
    cost = arithmetic.cost * float(weight.max())
    scale = _scale(norm, arithmetic.negligible, scaled, rounding, cost)
    resolved = norm > arithmetic.negligible
    rescaling = best_rescaling(scaled, truth, noise, rounding) if resolved else _NO_RESCALING
    noted = arithmetic._replace(resolution=_REMARKABLE).of_dtype(moments, exact)
    decision = verdict(joint.p_value, bias, scale, unresolved, noted * length)
    if decision.undecided:
        more = replicates_to_decide(moments, exact, weight, peak, allowance, reference)
        decision = decision.with_replicates(more)
    return {
        "gradient_norm": norm,
        "scale": scale,
        **bias.columns("bias_sq"),
        "bias_norm": bias_norm,
        "relative_bias": _ratio(bias_norm, scale),
        "rounding": rounding,
        "bias_precision": bias_precision(bias, scale),
        "max_z": joint.max_z,
        "p_value": joint.p_value,
        "detectable_bias": _ratio(joint.detectable, scale),
        **rescaling.scale.columns("best_scale"),
        **rescaling.residual.columns("relative_bias_rescaled"),
        "verdict": decision.word,
        "note": decision.note,
        **spread,
        "snr": _ratio(norm**2, variance.estimate),
    }


def _scale(norm: float, negligible: float, scaled: Moments, rounding: float, cost: float) -> float:
    """The unit of a relative bias: ‖g‖, or where that is zero the length √E‖ĝ‖² of an estimate.

    Where that is rounding as well, it is the size of the costs.
    """
    if norm > negligible:
        return norm
    length = float(scaled.mean_square.sum()) ** 0.5
    return length if length > rounding else max(cost, norm)


def _ratio(a: float, b: float) -> float:
    if b == 0:
        return 0.0 if a == 0 else math.inf
    return a / b
