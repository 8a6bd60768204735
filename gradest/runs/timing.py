"""Seconds per estimate, measured after the parallel run.

The cells are timed serially, in one thread and interleaved: every round times each cell once, so
that a slow phase of the machine affects all cells equally.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from gradest.contracts import built_in
from gradest.plugins import PluginBundle, Registry
from gradest.randomness import Draws, drawing_from
from gradest.runs.cells import foreign
from gradest.runs.estimate_runtime import seconds_of
from gradest.runs.measurement_cell import MeasuringCell
from gradest.runs.processes import Died, Failed, Process
from gradest.support import one_thread, reason_of

# The smallest and the largest of seven cover the median with probability 1 − 2⁻⁶ = 98 %.
ROUNDS = 7
LEAST_SECONDS = 0.02  # minimum duration of a timed call, far above the noise of the clock

_Timer = Callable[[], float]  # measures the seconds per estimate at each call


def least_seconds(cells: int) -> float:
    """The seconds that `time_cells` takes at least."""
    return cells * ROUNDS * LEAST_SECONDS


def time_cells(
    cells: Sequence[MeasuringCell],
    registry: Registry,
    advance: Callable[[], None],
    bundle: PluginBundle,
    timeout: float | None,
) -> list[list[float]]:
    """Seconds per estimate of each cell in each round; `advance` is called after each timed call.

    A cell that fails here although it could be measured gets no times, and the others go on.  Code
    from outside the catalogue is timed in separate processes, which wait while others are timed; a
    process that takes more than `timeout` seconds is ended.
    """
    samples: list[list[float]] = [[] for _ in cells]
    elsewhere: dict[tuple[str, ...], _Elsewhere] = {}
    with one_thread(), ExitStack() as processes:
        timers: list[_Timer] = []
        for cell in cells:
            if foreign(cell, registry):
                plugins = _plugins(cell, registry)
                if plugins not in elsewhere:
                    elsewhere[plugins] = processes.enter_context(_Elsewhere(bundle, timeout))
                timers.append(_guarded(cell, elsewhere[plugins].timer))
            else:
                timers.append(_guarded(cell, lambda cell: _timer(cell, registry)))
        for _ in range(ROUNDS):
            for timer, times in zip(timers, samples, strict=True):
                times.append(timer())
                advance()
    return [times if all(map(math.isfinite, times)) else [] for times in samples]


def _plugins(cell: MeasuringCell, registry: Registry) -> tuple[str, ...]:
    """The names of the plugins in a cell; cells with the same plugins share a process."""
    classes = registry.task(cell.task), registry.estimator(cell.estimator)
    return tuple(cls.name for cls in classes if not built_in(cls))


def _guarded(cell: MeasuringCell, make: Callable[[MeasuringCell], _Timer]) -> _Timer:
    """A timer that warns of the first failure and then returns NaN."""
    failed = False
    try:
        timer = make(cell)
    except Exception as error:
        failed = _warn(cell, error)

    def guarded() -> float:
        nonlocal failed
        if failed:
            return math.nan
        try:
            return timer()
        except Exception as error:
            failed = _warn(cell, error)
            return math.nan

    return guarded


def _warn(cell: MeasuringCell, error: Exception) -> bool:
    reason = str(error) if isinstance(error, Failed) else reason_of(error)
    warnings.warn(f"{cell.task} × {cell.estimator} cannot be timed: {reason}", stacklevel=3)
    return True


def _timer(cell: MeasuringCell, registry: Registry) -> _Timer:
    with drawing_from(Draws.seeded(cell.draw_seed, cell.device)) as source:
        replicator = cell.replicator(registry)
        replicator.adapt(min(cell.adapt_steps, 1))  # the values of the state do not affect times
        rows = replicator.pilot(source)
        repeats = math.ceil(LEAST_SECONDS / seconds_of(lambda: replicator(rows)))

    def timer() -> float:
        with drawing_from(source):
            seconds = seconds_of(lambda: [replicator(rows) for _ in range(repeats)])
        return seconds / (rows * repeats)

    return timer


class _Elsewhere:
    """Timers in a separate process; if it dies, all of them raise."""

    def __init__(self, bundle: PluginBundle, timeout: float | None) -> None:
        self._bundle, self._timeout = bundle, timeout
        self._process: Process | None = None
        self._dead: Died | None = None

    def __enter__(self) -> "_Elsewhere":
        self._process = Process()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def timer(self, cell: MeasuringCell) -> _Timer:
        number = self._call(_begin, cell, self._bundle)
        return lambda: self._call(_go_on, number)

    def _call(self, call: Callable[..., float], *arguments: object) -> float:
        if self._dead is not None:
            raise self._dead
        try:
            return self._process.call(call, *arguments, timeout=self._timeout)
        except Died as death:
            self._process.close()
            self._dead = death
            raise


_timers: list[_Timer] = []  # in a process that only times


def _begin(cell: MeasuringCell, bundle: PluginBundle) -> int:
    """The number of a new timer in this process."""
    _timers.append(_timer(cell, bundle.registry(cell.names)))
    return len(_timers) - 1


def _go_on(number: int) -> float:
    return _timers[number]()
