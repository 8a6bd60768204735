"""How tight the intervals are wanted, and how many replicates that takes.

The number is planned from a pilot whose draws are not used again.  Given the pilot it is a
constant, so that everything that holds for a fixed number of replicates holds for the measurement:
nothing looks at the interval that it reports before it decides to stop.

Stein, "A two-sample test for a linear hypothesis whose power is independent of the variance", 1945.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt
from pydantic import AllowInfNan, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from gradest.inference import replicates_needed
from gradest.measuring.parameters import LOG_ALPHA
from gradest.measuring.replicator import Replicator
from gradest.measuring.schedule import BATCHES, FEWEST, PER_BATCH
from gradest.measuring.tally import Tally
from gradest.measuring.truth import Truth
from gradest.moments import Moments

_PILOT = 4096  # replicates from which the number is planned

Fraction = Annotated[float, Gt(0), AllowInfNan(False)]


class Precision(BaseModel):
    """The widest half-intervals that are wanted for the gradient in log α, and the budget.

    `variance` is relative to the variance, `bias` to the larger of ‖g‖ and the bias.  A limit in
    seconds makes the numbers depend on the speed of the machine; one in replicates does not.

    Raises ValidationError for a key or a value that it cannot have, and without any target.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    variance: Fraction | None = None
    bias: Fraction | None = None
    max_replicates: Annotated[int, Ge(FEWEST)] = 1_000_000
    max_seconds: Fraction | None = None

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.variance is None and self.bias is None:
            raise PydanticCustomError("no_target", "needs a target, variance or bias, to reach")
        return self


def planned(asked: Precision, replicator: Replicator, chunk: int, truth: Truth | None) -> int:
    """How many replicates give the gradient in log α the precision asked for, within the budget.

    The bias counts where there is a truth to compare with.
    """
    start = time.perf_counter()
    replicates = min(_PILOT, asked.max_replicates)
    pilot = Tally("pilot", replicator.logits, None, {}, tolerant=True)
    for piece in replicator.pieces(replicates, chunk):
        pilot.add(*piece)
    seconds = (time.perf_counter() - start) / replicates
    affordable = asked.max_replicates
    if asked.max_seconds is not None:
        affordable = min(affordable, int(asked.max_seconds / seconds))
    needed = affordable
    if not pilot.nonfinite:
        moments = Moments.stacked(pilot.gradients[LOG_ALPHA])
        needed = replicates_needed(
            moments,
            None if truth is None else truth.gradients[LOG_ALPHA],
            torch.ones_like(moments.mean[0]),
            pilot.peaks[LOG_ALPHA],
            variance=asked.variance,
            bias=None if truth is None else asked.bias,
            reference=None if truth is None else truth.noise.get(LOG_ALPHA),
            unseen=0.0 if truth is None else truth.spread,
        )
    # With fewer there would be fewer batches than the plan reckons with.
    return max(FEWEST, min(max(needed, PER_BATCH * BATCHES), affordable))


def shortfall(asked: Precision | None, row: Mapping[str, Any]) -> str:
    """`reached`, or what was not and by how much; nothing where nothing was asked for.

    A bias without a truth to compare with cannot be asked for.
    """
    if asked is None:
        return ""
    wanted = {"variance": asked.variance, "bias": asked.bias}
    missed = [
        f"{name} to {row[f'{name}_precision']:.3g} instead of {limit:g}"
        for name, limit in wanted.items()
        if limit is not None and row[f"{name}_precision"] > limit
    ]
    return ", ".join(missed) or "reached"
