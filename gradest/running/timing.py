"""Seconds per estimate, measured apart from the parallel run.

Serially and in one thread, and interleaved: every round times each cell once, so that a slow
moment of the machine falls on all of them alike.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence

import torch

from gradest.knobs import build
from gradest.measuring.outcomes import outcomes
from gradest.measuring.precision import Precision, planned
from gradest.measuring.replicator import Replicator
from gradest.measuring.truth import known
from gradest.randomness import Draws, drawing_from
from gradest.registry import Registry
from gradest.running.cells import MeasuringCell
from gradest.threads import one_thread

# The smallest and the largest of seven cover the median with probability 1 − 2⁻⁶ = 98 %.
ROUNDS = 7
_LEAST_SECONDS = 0.02  # a timed call lasts at least this long, well above the clock's noise


def bound(cell: MeasuringCell, registry: Registry) -> Replicator:
    """The cell's estimator on the cell's task.  Raises Inapplicable where it does not apply."""
    return Replicator(
        build(registry.estimator(cell.estimator), cell.estimator_knobs),
        build(registry.task(cell.task), cell.task_knobs),
        getattr(torch, cell.dtype),
        cell.device,
    )


def time_cells(
    cells: Sequence[MeasuringCell], registry: Registry, advance: Callable[[], None]
) -> list[list[float]]:
    """Seconds per estimate of each cell in each round; `advance` is called at every step.

    A cell that fails here although it could be measured has no times: the others go on.
    """
    samples: list[list[float]] = [[] for _ in cells]
    with one_thread():
        calls = [_prepared(cell, registry) for cell in cells]
        for _ in range(ROUNDS):
            for call, times in zip(calls, samples, strict=True):
                times.append(call())
                advance()
    return [times if all(map(math.isfinite, times)) else [] for times in samples]


def expected_seconds(cell: MeasuringCell, registry: Registry) -> float:
    """How long the cell will take, from a short trial."""
    with one_thread(), drawing_from(Draws.seeded(0, cell.device)) as source:
        replicator = bound(cell, registry)
        adapting = _seconds(lambda: replicator.adapt(min(cell.adapt_steps, 1)))
        chunk = replicator.pilot(source)
        estimates = None
        if cell.enumerate_draws is not False:
            estimates = outcomes(replicator)
        if estimates is None:
            estimates = _replicates(cell, replicator, chunk)
        rows = min(estimates, chunk)
        return adapting * cell.adapt_steps + _seconds(lambda: replicator(rows)) / rows * estimates


def _replicates(cell: MeasuringCell, replicator: Replicator, chunk: int) -> int:
    if cell.precision is None:
        return cell.replicates
    return planned(Precision(**cell.precision), replicator, chunk, known(replicator, {}))


def _prepared(cell: MeasuringCell, registry: Registry) -> Callable[[], float]:
    """A call that times some estimates of the cell: seconds per estimate, NaN if that fails."""
    try:
        with drawing_from(Draws.seeded(cell.draw_seed, cell.device)) as source:
            replicator = bound(cell, registry)
            replicator.adapt(min(cell.adapt_steps, 1))  # builds the state; its values cost no time
            rows = replicator.pilot(source)
            repeats = math.ceil(_LEAST_SECONDS / _seconds(lambda: replicator(rows)))
    except Exception as error:
        untimed = _untimed(cell, error)
        return lambda: untimed

    def call() -> float:
        try:
            with drawing_from(source):
                seconds = _seconds(lambda: [replicator(rows) for _ in range(repeats)])
        except Exception as error:
            return _untimed(cell, error)
        return seconds / (rows * repeats)

    return call


def _untimed(cell: MeasuringCell, error: Exception) -> float:
    warnings.warn(f"{cell.task} × {cell.estimator} cannot be timed: {error}", stacklevel=2)
    return math.nan


def _seconds(call: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
