"""The precision requested of the intervals, and the number of replicates that it takes.

The number is planned from a pilot whose draws are not used again.  Given the pilot it is a
constant, so that everything that holds for a fixed number of replicates holds for the measurement:
the reported interval has no part in the decision to stop.

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", 1945.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt
from pydantic import AllowInfNan, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from gradest.measurement.accumulator import Accumulator
from gradest.measurement.parameters import LOG_ALPHA
from gradest.measurement.replicator import Replicator
from gradest.measurement.truth import Truth
from gradest.statistics import BATCHES, FEWEST, PER_BATCH, Moments, replicates_needed

_PILOT = 4096  # replicates from which the number is planned

Fraction = Annotated[float, Gt(0), AllowInfNan(False)]


class Precision(BaseModel):
    """The widest half-intervals accepted for the gradient in log α, and the budget.

    `variance` is relative to the variance, `bias` to the larger of ‖g‖ and the bias.  A limit in
    seconds makes the numbers depend on the speed of the machine; one in replicates does not.

    Raises ValidationError for an unknown key, for a value out of range, and without any target.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    variance: Fraction | None = None
    bias: Fraction | None = None
    max_replicates: Annotated[int, Ge(FEWEST)] = 1_000_000
    max_seconds: Fraction | None = None

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.variance is None and self.bias is None:
            raise PydanticCustomError("no_target", "expected a target, variance or bias")
        return self


def plan_replicates(
    precision: Precision, replicator: Replicator, chunk: int, truth: Truth | None
) -> int:
    """The number of replicates for the precision requested, within the budget.

    It is that of the gradient in log α; the bias counts where the true gradient is known.
    """
    start = time.perf_counter()
    replicates = min(_PILOT, precision.max_replicates)
    pilot = Accumulator("pilot", replicator.logits, None, {}, tolerant=True)
    for piece in replicator.pieces(replicates, chunk):
        pilot.add(*piece)
    seconds = (time.perf_counter() - start) / replicates
    affordable = precision.max_replicates
    if precision.max_seconds is not None:
        affordable = min(affordable, int(precision.max_seconds / seconds))
    needed = affordable
    if not pilot.nonfinite:
        moments = Moments.stacked(pilot.gradients[LOG_ALPHA])
        needed = replicates_needed(
            moments,
            None if truth is None else truth.gradients[LOG_ALPHA],
            torch.ones_like(moments.mean[0]),
            pilot.peaks[LOG_ALPHA],
            variance=precision.variance,
            bias=None if truth is None else precision.bias,
            reference=None if truth is None else truth.noise.get(LOG_ALPHA),
            unseen=0.0 if truth is None else truth.spread,
        )
    # The plan assumes the full number of batches, which fewer replicates would not fill.
    return max(FEWEST, min(max(needed, PER_BATCH * BATCHES), affordable))


_RELATIVE_TO = {"variance": "", "bias": " of max(‖g‖, ‖bias‖)"}


def shortfall(requested: Precision | None, row: Mapping[str, Any]) -> str:
    """`reached`, or the targets that were missed and by how much; empty without a request.

    The bias is not a target where the true gradient is unknown.
    """
    if requested is None:
        return ""
    targets = {"variance": requested.variance, "bias": requested.bias}
    missed = [
        f"{name} within {100 * row[f'{name}_precision']:.3g} %{_RELATIVE_TO[name]} "
        f"instead of {100 * limit:g} %"
        for name, limit in targets.items()
        if limit is not None and row[f"{name}_precision"] > limit
    ]
    return ", ".join(missed) or "reached"
