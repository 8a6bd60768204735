"""Two estimators on the same draws: common random numbers.

Every piece of replicates has a stream of random numbers of its own, which both read from its
start.  Equal requests get equal numbers; after unequal ones the numbers differ, up to the end of
the piece.

Glasserman & Yao, "Some guidelines and guarantees for common random numbers", 1992.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.errors import NonFiniteGradient
from gradest.measurement.enumerated_moments import ExactMoments
from gradest.measurement.progress import advance, phase
from gradest.measurement.setup import prepare
from gradest.randomness import Draws, drawing_from
from gradest.statistics import Interval, Moments, resolution, schedule, squared_bias, total_variance


class Side:
    """One of two estimators, adapted: its moments are `exact`, or drawn and in `moments`."""

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        enumerate_draws: bool | None,
        seed: int,
        adapt_steps: int | None,
        dtype: torch.dtype,
        device: str | torch.device,
    ) -> None:
        self.device = device
        steps = estimator.adapt_steps if adapt_steps is None else adapt_steps
        with drawing_from(Draws.seeded(seed, device)) as source:
            setup = prepare(estimator, task, steps, dtype, device, source)
            moments = setup.enumerate_moments(enumerate_draws)
        self.exact = moments if isinstance(moments, ExactMoments) else None
        self.check_cost_again = setup.check_cost_again
        self.name, self.replicator, self.chunk = setup.title, setup.replicator, setup.chunk
        self.moments: Moments | None = None  # filled by `draw`
        self.cost = float(self.exact.value.abs().max()) if self.exact else 0.0  # the size |f|

    @property
    def evaluations(self) -> int:
        return self.replicator.evaluations

    def gradients(self, replicates: int, stream: int) -> Tensor:
        """Estimates [R, D] in float64 on the CPU, from this stream; the mean where it is exact."""
        if self.exact:
            return self.mean().expand(replicates, -1)
        with drawing_from(Draws.seeded(stream, self.device)):
            gradient, value = self.replicator(replicates)
        self.cost = max(self.cost, float(value.abs().max()))
        if not gradient.isfinite().all():
            raise NonFiniteGradient(
                f"{self.name}: expected finite gradients, got NaN or inf in some replicates"
            )
        return gradient.double().cpu()

    def mean(self) -> Tensor:
        """The mean estimate, [D]."""
        return self.exact.mean.flatten() if self.exact else self.moments.pooled.mean[0]

    def rounding(self) -> float:
        """The length that rounding gives to a zero vector, by the size of gradients and costs."""
        size = float(self.mean().norm()) + self.cost
        return resolution(self.replicator.logits.dtype) * size

    def variance(self) -> Interval:
        """tr Cov(ĝ)."""
        if self.exact:
            variance = Interval.exactly(float(self.exact.variance.sum()))
        else:
            variance = total_variance(self.moments)
        return variance if variance.estimate > self.rounding() ** 2 else Interval.exactly(0.0)

    def log_variances(self) -> np.ndarray:
        """log tr Cov(ĝ) without each batch in turn, [J]; of the whole, [1], where it is exact."""
        if self.exact:
            return np.log([self.variance().estimate])
        m2 = self.moments.m2.sum(1).numpy()
        freedom = self.moments.count.numpy() - 1
        return np.log((m2.sum() - m2) / (freedom.sum() - freedom))

    def bias(self, truth: Tensor) -> tuple[Interval, np.ndarray]:
        """‖E ĝ − g‖, and the noise of each batch along it, up to a factor: [J]."""
        deviation = self.mean() - truth
        if self.exact:
            length = float(deviation.norm())
            return Interval.exactly(length if length > self.rounding() else 0.0), np.zeros(1)
        return squared_bias(self.moments, truth).root(), (self.moments.mean @ deviation).numpy()


def draw(sides: Sequence[Side], replicates: int, seed: int) -> Moments | None:
    """Draw the moments of the sides; returns those of the differences between their estimates.

    None where both are exact.
    """
    if all(side.exact for side in sides):
        return None
    parts: list[list[Moments]] = [[], [], []]
    streams = _stream_seeds(seed)
    with phase("replicates", replicates):
        for batches, size, continued in schedule(replicates, min(side.chunk for side in sides)):
            stream = next(streams)
            a, b = (side.gradients(batches * size, stream) for side in sides)
            for moments, block in zip(parts, (a, b, a - b), strict=True):
                part = Moments.of(block.unflatten(0, (batches, -1)))
                moments.append(moments.pop().merge(part) if continued else part)
            advance(batches * size)
    for side, moments in zip(sides, parts, strict=False):
        side.moments = Moments.stacked(moments)
    return Moments.stacked(parts[-1])


def _stream_seeds(seed: int) -> Iterator[int]:
    """The seeds of independent streams."""
    sequence = np.random.SeedSequence(seed)
    while True:
        (child,) = sequence.spawn(1)
        yield int(child.generate_state(1, np.uint64)[0])
