"""What a narrower dtype changes in the estimates themselves."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.inference import mean_interval
from gradest.measuring.progress import phase
from gradest.measuring.replicator import Replicator, another
from gradest.measuring.schedule import schedule
from gradest.moments import Moments
from gradest.randomness import Draws, drawing_from

_REPLICATES = 256


class Drift(NamedTuple):
    """E‖ĝ in the dtype − ĝ in float64‖ under the same noise, relative to √E‖ĝ‖² in float64."""

    mean: float
    standard_error: float


class _Request(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype
    law: str


class _Recording(Draws):
    """Keeps what it was asked for."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.tape: deque[_Request] = deque()

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        self.tape.append(_Request(tuple(shape), like.dtype, law))
        return super()._fill(shape, like, law)


class _Replaying(Draws):
    """Gives the noise of a tape again, from the same seed, in whatever dtype is asked for.

    Where it is asked for other noise than the tape holds it gives some of its own, and says so: how
    many draws there are may depend on rounding.
    """

    def __init__(self, tape: deque[_Request], generator: torch.Generator) -> None:
        super().__init__(generator)
        self.parted = False
        self._tape = tape

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        if not self._tape or (self._tape[0].shape, self._tape[0].law) != (tuple(shape), law):
            self.parted = True
            return super()._fill(shape, like, law)
        before = like.new_empty(0, dtype=self._tape.popleft().dtype)
        return super()._fill(shape, before, law).to(like.dtype)


def drift(
    estimator: Estimator,
    task: Task,
    dtype: torch.dtype,
    device: str | torch.device,
    steps: int,
    seed: int,
) -> Drift:
    """How far the estimates are from those of the same estimator in float64, adapted alike.

    Not a number where an estimate is not, and where the two do not draw alike.
    """
    recording = _Recording(torch.Generator(device).manual_seed(seed))
    replaying = _Replaying(recording.tape, torch.Generator(device).manual_seed(seed))
    with drawing_from(recording):
        narrow = Replicator(another(estimator), task, dtype, device)
    with drawing_from(replaying):
        wide = Replicator(another(estimator), task, torch.float64, device, cost_dtype=dtype)
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
            seen, _ = narrow(batches * size)
        with drawing_from(replaying):
            exact, _ = wide(batches * size)
        estimates.append(torch.stack([seen.double(), exact]))
    if replaying.parted or recording.tape:
        return Drift(float("nan"), float("nan"))
    seen, exact = torch.cat(estimates, 1)  # [R, D]
    size = float(exact.square().sum(1).mean()) ** 0.5
    distance = (seen - exact).norm(dim=1)  # [R]
    if size == 0:
        return Drift(0.0 if not distance.any() else float("inf"), 0.0)
    found = mean_interval(Moments.of((distance / size).reshape(1, -1, 1)))
    return Drift(found.estimate, found.standard_error)
