"""The error that a narrower dtype makes in the estimates themselves."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.measurement.progress import phase
from gradest.measurement.replicator import Replicator, copy_of
from gradest.randomness import Draws, drawing_from
from gradest.statistics import Moments, mean_interval, schedule

_REPLICATES = 256


class DtypeError(NamedTuple):
    """E‖ĝ in the dtype − ĝ in float64‖ under the same noise, relative to √E‖ĝ‖² in float64."""

    mean: float
    standard_error: float


class _Request(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype
    distribution: str


class _Recording(Draws):
    """Draws that keep a record of the requests."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.tape: deque[_Request] = deque()

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        self.tape.append(_Request(tuple(shape), like.dtype, distribution))
        return super()._fill(shape, like, distribution)


class _Replaying(Draws):
    """Draws that repeat the noise of a tape, from the same seed, in any dtype.

    A request that the tape does not hold is served with noise of its own, and `diverged` is set:
    the number of draws may depend on rounding.
    """

    def __init__(self, tape: deque[_Request], generator: torch.Generator) -> None:
        super().__init__(generator)
        self.diverged = False
        self._tape = tape

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        request = (tuple(shape), distribution)
        if not self._tape or (self._tape[0].shape, self._tape[0].distribution) != request:
            self.diverged = True
            return super()._fill(shape, like, distribution)
        before = like.new_empty(0, dtype=self._tape.popleft().dtype)
        return super()._fill(shape, before, distribution).to(like.dtype)


def measure_dtype_error(
    estimator: Estimator,
    task: Task,
    dtype: torch.dtype,
    device: str | torch.device,
    steps: int,
    seed: int,
) -> DtypeError:
    """Measure the distance of the estimates from those of the same estimator in float64.

    Both adapt on the same noise.  NaN where an estimate is NaN or infinite, and where the two do
    not draw the same noise.
    """
    recording = _Recording(torch.Generator(device).manual_seed(seed))
    replaying = _Replaying(recording.tape, torch.Generator(device).manual_seed(seed))
    with drawing_from(recording):
        narrow = Replicator(copy_of(estimator), task, dtype, device)
    with drawing_from(replaying):
        wide = Replicator(copy_of(estimator), task, torch.float64, device, cost_dtype=dtype)
    with phase("adapting in both precisions", 2 * steps):
        for _ in range(steps):
            with drawing_from(recording):
                narrow.adapt(1)
            with drawing_from(replaying):
                wide.adapt(1)
    spare = Draws.seeded(seed, device)
    with drawing_from(spare):
        chunk = wide.pilot(spare)
    estimates = []
    for batches, size, _ in schedule(_REPLICATES, chunk):
        with drawing_from(recording):
            rounded, _ = narrow(batches * size)
        with drawing_from(replaying):
            exact, _ = wide(batches * size)
        estimates.append(torch.stack([rounded.double(), exact]))
    if replaying.diverged or recording.tape:
        return DtypeError(float("nan"), float("nan"))
    rounded, exact = torch.cat(estimates, 1)  # [R, D]
    size = float(exact.square().sum(1).mean()) ** 0.5
    distance = (rounded - exact).norm(dim=1)  # [R]
    if size == 0:
        return DtypeError(0.0 if not distance.any() else float("inf"), 0.0)
    error = mean_interval(Moments.of((distance / size).reshape(1, -1, 1)))
    return DtypeError(error.estimate, error.standard_error)
