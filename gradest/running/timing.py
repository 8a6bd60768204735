"""Seconds per estimate, measured apart from the parallel run.

Serially and in one thread, and interleaved: every round times each cell once, so that a slow
moment of the machine falls on all of them alike.
"""

import math
import warnings
from collections.abc import Callable, Sequence

from gradest.randomness import Draws, drawing_from
from gradest.registry import Registry
from gradest.running.clock import seconds_of
from gradest.running.measuring_cell import MeasuringCell
from gradest.threads import one_thread

# The smallest and the largest of seven cover the median with probability 1 − 2⁻⁶ = 98 %.
ROUNDS = 7
_LEAST_SECONDS = 0.02  # a timed call lasts at least this long, well above the clock's noise


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


def _prepared(cell: MeasuringCell, registry: Registry) -> Callable[[], float]:
    """A call that times some estimates of the cell: seconds per estimate, NaN if that fails."""
    try:
        with drawing_from(Draws.seeded(cell.draw_seed, cell.device)) as source:
            replicator = cell.replicator(registry)
            replicator.adapt(min(cell.adapt_steps, 1))  # builds the state; its values cost no time
            rows = replicator.pilot(source)
            repeats = math.ceil(_LEAST_SECONDS / seconds_of(lambda: replicator(rows)))
    except Exception as error:
        untimed = _untimed(cell, error)
        return lambda: untimed

    def call() -> float:
        try:
            with drawing_from(source):
                seconds = seconds_of(lambda: [replicator(rows) for _ in range(repeats)])
        except Exception as error:
            return _untimed(cell, error)
        return seconds / (rows * repeats)

    return call


def _untimed(cell: MeasuringCell, error: Exception) -> float:
    warnings.warn(f"{cell.task} × {cell.estimator} cannot be timed: {error}", stacklevel=2)
    return math.nan
