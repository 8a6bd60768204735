"""Two estimators on the same draws.

Every piece of replicates has a stream of random numbers of its own, which both read from its
start.  Where they ask alike they get alike; where they do not, their streams part for one piece.

Glasserman & Yao, "Some guidelines and guarantees for common random numbers", 1992.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.errors import NonFiniteGradient
from gradest.inference import Interval, squared_bias, total_variance
from gradest.measuring.outcomes import Enumerated
from gradest.measuring.preparation import prepared
from gradest.measuring.progress import advance, phase
from gradest.measuring.rounding import resolution
from gradest.measuring.schedule import schedule
from gradest.moments import Moments
from gradest.randomness import Draws, drawing_from


class Side:
    """One of two estimators, adapted: exact where its draws are enumerated, else by `moments`."""

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
            subject = prepared(estimator, task, steps, dtype, device, source)
            found = subject.listed(enumerate_draws)
        self.exact = found if isinstance(found, Enumerated) else None
        self.repeat = subject.repeat
        self.name, self.replicator, self.chunk = subject.title, subject.replicator, subject.chunk
        self.moments: Moments | None = None  # filled by `draw`
        self.cost = float(self.exact.value.abs().max()) if self.exact else 0.0  # the size of f

    @property
    def evaluations(self) -> int:
        return self.replicator.evaluations

    def gradients(self, replicates: int, stream: int) -> Tensor:
        """[R, D] in float64 on the CPU, from this stream; what is exact is its mean throughout."""
        if self.exact:
            return self.mean().expand(replicates, -1)
        with drawing_from(Draws.seeded(stream, self.device)):
            gradient, value = self.replicator(replicates)
        self.cost = max(self.cost, float(value.abs().max()))
        if not gradient.isfinite().all():
            raise NonFiniteGradient(f"{self.name}: the gradient is not finite in some replicates")
        return gradient.double().cpu()

    def mean(self) -> Tensor:
        """[D]"""
        return self.exact.mean.flatten() if self.exact else self.moments.pooled().mean[0]

    def rounding(self) -> float:
        """The length that the arithmetic leaves of zero, by the size of gradients and costs."""
        size = float(self.mean().norm()) + self.cost
        return resolution(self.replicator.logits.dtype) * size

    def variance(self) -> Interval:
        """tr Cov(ĝ)."""
        if self.exact:
            found = Interval.exactly(float(self.exact.variance.sum()))
        else:
            found = total_variance(self.moments)
        return found if found.estimate > self.rounding() ** 2 else Interval.exactly(0.0)

    def log_variances(self) -> np.ndarray:
        """log tr Cov(ĝ) without each batch in turn: [J], or [1] of what is exact."""
        if self.exact:
            return np.log([self.variance().estimate])
        m2 = self.moments.m2.sum(1).numpy()
        freedom = self.moments.count.numpy() - 1
        return np.log((m2.sum() - m2) / (freedom.sum() - freedom))

    def bias(self, truth: Tensor) -> tuple[Interval, np.ndarray]:
        """‖E ĝ − g‖, and the noise along it of each batch, up to a factor: [J]."""
        deviation = self.mean() - truth
        if self.exact:
            length = float(deviation.norm())
            return Interval.exactly(length if length > self.rounding() else 0.0), np.zeros(1)
        return length_of(squared_bias(self.moments, truth)), (self.moments.mean @ deviation).numpy()


def draw(sides: Sequence[Side], replicates: int, seed: int) -> Moments | None:
    """Fill the moments of the sides; returns those of the differences between their estimates.

    None where there is nothing to draw.
    """
    if all(side.exact for side in sides):
        return None
    parts: list[list[Moments]] = [[], [], []]
    streams = _streams(seed)
    with phase("replicates", replicates):
        for batches, size, joined in schedule(replicates, min(side.chunk for side in sides)):
            stream = next(streams)
            a, b = (side.gradients(batches * size, stream) for side in sides)
            for kept, seen in zip(parts, (a, b, a - b), strict=True):
                part = Moments.of(seen.unflatten(0, (batches, -1)))
                kept.append(kept.pop().merge(part) if joined else part)
            advance(batches * size)
    for side, kept in zip(sides, parts, strict=False):
        side.moments = Moments.stacked(kept)
    return Moments.stacked(parts[-1])


def length_of(square: Interval) -> Interval:
    """‖x‖ from ‖x‖², which was debiased and may be negative."""
    return Interval(*(max(end, 0.0) ** 0.5 for end in square[:3]), float("nan"))


def _streams(seed: int) -> Iterator[int]:
    """Seeds of independent streams."""
    sequence = np.random.SeedSequence(seed)
    while True:
        (child,) = sequence.spawn(1)
        yield int(child.generate_state(1, np.uint64)[0])
