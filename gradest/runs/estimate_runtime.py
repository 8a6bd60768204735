"""The expected run time of a measurement, from a short trial."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from gradest.errors import NonFiniteGradient
from gradest.measurement import Replicator, outcome_count
from gradest.randomness import Draws, drawing_from
from gradest.support import one_thread


def expected_seconds(
    make: Callable[[], Replicator],
    adapt_steps: int,
    replicates: Callable[[Replicator, int], int],
    device: str | torch.device,
    listed: bool = True,
    tolerant: bool = True,
) -> float:
    """The seconds that the adaptation steps and the estimates take in one thread.

    The number of estimates is that of the joint outcomes of the draws if these may be `listed` and
    can be enumerated, or else `replicates(replicator, chunk)`.  Raises the errors of `make` and of
    the estimates, and NonFiniteGradient for a non-finite estimate unless `tolerant`.
    """
    with one_thread(), drawing_from(Draws.seeded(0, device)) as source:
        replicator = make()
        if adapt_steps:
            replicator.adapt(1)  # the first step loads and builds what all others use
        adapting = seconds_of(lambda: replicator.adapt(min(adapt_steps, 1)))
        chunk = replicator.pilot(source)
        estimates = outcome_count(replicator) if listed else None
        if estimates is None:
            estimates = replicates(replicator, chunk)
        rows = min(estimates, chunk)
        results: list[tuple[Tensor, Tensor]] = []
        one = seconds_of(lambda: results.append(replicator(rows))) / rows
        if not tolerant and not all(bool(x.isfinite().all()) for x in results[0]):
            raise NonFiniteGradient("an estimate is not finite")
        return adapting * adapt_steps + one * estimates


def seconds_of(call: Callable[[], object]) -> float:
    """The duration of a call in seconds, including its work on the CUDA device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
