"""Measurements of one quantity under several seeds, pooled into one with all their replicates."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gradest.errors import UsageError
from gradest.measurement.dtype_error import DtypeError
from gradest.measurement.result import ENUMERATED, Measurement
from gradest.statistics import Moments, batches_of

# What the seed has no part in.
_SHARED = (
    *("logits", "truth", "asked", "method", "outcomes"),
    *("evaluations", "gradient_evaluations", "adapt_steps"),
)
# What it has no part in either where the draws are enumerated.
_EXACT = ("gradients", "objective", "means")


def pooling_obstacle(measurement: Measurement) -> str:
    """Why a measurement cannot be pooled with those of other seeds; empty if it can.

    An adaptive estimator is measured in the state that its seed has led to: replicates of two
    states have two distributions, and their pooled variance would be that of neither.
    """
    return "adapts to its seed" if measurement.adapt_steps else ""


def pool(measurements: Sequence[Measurement]) -> Measurement:
    """One measurement with the replicates of all of them, which must differ in their seeds alone.

    The moments are merged exactly, into as many batches as a single measurement with so many
    replicates has.  Enumerated measurements are equal, and so is the result.

    Raises UsageError, naming the first quantity, if something that no seed changes differs.
    """
    first = measurements[0]
    plain = [_identical_part(each) for each in measurements]
    for other in plain[1:]:
        if differing := [name for name in plain[0] if plain[0][name] != other.get(name)]:
            raise UsageError(f"{differing[0]} differs, which no seed changes")
    if obstacle := next(filter(None, map(pooling_obstacle, measurements)), ""):
        raise UsageError(f"the estimator {obstacle}")
    counts = [each.replicates or 1 for each in measurements]
    total = sum(counts)

    def mean(values: Sequence[float]) -> float:
        return math.fsum(n * x for n, x in zip(counts, values, strict=True)) / total

    pooled = replace(
        first,
        cosines=_all_cosines([each.cosines for each in measurements]),
        peaks={name: max(each.peaks[name] for each in measurements) for name in first.peaks},
        resolution=max(each.resolution for each in measurements),
        drift=_mean_error([each.drift for each in measurements]),
        memory=max(each.memory for each in measurements),
        zero=mean([each.zero for each in measurements]),
        nonfinite=mean([each.nonfinite for each in measurements]),
        overflow=mean([each.overflow for each in measurements]),
        seconds=mean([each.seconds for each in measurements]),
    )
    if first.method == ENUMERATED:
        return pooled
    batches = batches_of(total, first.gradient.mean.shape[1])
    weighted = list(zip(counts, measurements, strict=True))
    return replace(
        pooled,
        gradients={
            name: _merged([each.gradients[name] for each in measurements], batches)
            for name in first.gradients
        },
        objective=_merged([each.objective for each in measurements], batches),
        means={  # linear in the mean gradient with respect to log α
            name: sum(n * each.means[name] for n, each in weighted) / total for name in first.means
        },
    )


def _identical_part(measurement: Measurement) -> dict[str, Any]:
    """Plain data that measurements under several seeds have in common."""
    data = measurement.to_json()
    names = [*_SHARED, *(_EXACT if measurement.method == ENUMERATED else ())]
    groups = {"groups of parameters": [*data["gradients"], *data["means"]]}
    return {name: data[name] for name in names} | groups


def _merged(parts: Sequence[Moments], batches: int) -> Moments:
    return Moments.stacked(parts).in_batches(batches)


def _all_cosines(parts: Sequence[Moments]) -> Moments:
    """The cosines of all; those that are exact, and therefore equal, once."""
    first = parts[0].to_json()
    if all(each.to_json() == first for each in parts[1:]):
        return parts[0]
    return Moments.stacked(parts)


def _mean_error(errors: Sequence[DtypeError]) -> DtypeError:
    """The mean of independent estimates of the error of a dtype."""
    number = len(errors)
    spread = math.hypot(*(each.standard_error for each in errors))
    return DtypeError(math.fsum(each.mean for each in errors) / number, spread / number)
