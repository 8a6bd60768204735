"""How long a measurement will take, from a short trial."""

from collections.abc import Callable

import torch
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.measuring.outcomes import outcome_count
from gradest.measuring.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from gradest.running.clock import seconds_of
from gradest.threads import one_thread


def expected_seconds(
    make: Callable[[], Replicator],
    adapt_steps: int,
    replicates: Callable[[Replicator, int], int],
    device: str | torch.device,
    listed: bool = True,
    tolerant: bool = True,
) -> float:
    """In one thread: of the steps of adapt, and of the estimates.

    These are the joint outcomes of the draws, if they may be `listed` and can be, or as many as
    `replicates` says of a chunk of so many.  Raises what `make` and the estimates raise, and
    NonFiniteGradient for an estimate that is not finite, unless the cell is `tolerant` of these.
    """
    with one_thread(), drawing_from(Draws.seeded(0, device)) as source:
        replicator = make()
        adapting = seconds_of(lambda: replicator.adapt(min(adapt_steps, 1)))
        chunk = replicator.pilot(source)
        estimates = outcome_count(replicator) if listed else None
        if estimates is None:
            estimates = replicates(replicator, chunk)
        rows = min(estimates, chunk)
        made: list[tuple[Tensor, Tensor]] = []
        one = seconds_of(lambda: made.append(replicator(rows))) / rows
        if not tolerant and not all(bool(x.isfinite().all()) for x in made[0]):
            raise NonFiniteGradient("an estimate is not finite")
        return adapting * adapt_steps + one * estimates
