"""Sources of controlled noise: the same noise for all rows, or rare events made common.

One of the n uniforms of a row may be tilted towards the ends of (0, 1), so that an event of
probability 10⁻⁶ that depends on one of them occurs in about one row of a hundred.  Half of the rows
are not tilted; in the others each uniform is the tilted one equally often:

    w = 1 / (½ + ½ · 1/n Σⱼ r(uⱼ)),    r(u) = 1/(2 L u) + 1/(2 L (1 − u)),    L = log 1/a

(where the first term needs u > a, the second 1 − u > a), so that no weight exceeds two.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradest.randomness import Draws

_LEAST = 1e-10  # a: how far into the ends the tilt reaches
_LOG = -math.log(_LEAST)


class UnevenNoise(Exception):
    """Raised for noise that is not drawn row by row, the same amount for each row."""


class SharedNoise(Draws):
    """Draws in which the first row of each data point gets the same noise for any number of rows.

    The other rows get this noise too, or noise of their own.  Requests whose first axis is not that
    of the rows get ordinary noise, and `uneven` describes them: an exception would pass through the
    code of the estimator.
    """

    def __init__(self, points: int, rows: int, others_too: bool = True, seed: int = 1) -> None:
        super().__init__(torch.Generator().manual_seed(seed))
        self._points, self._rows = points, rows
        self._others = None if others_too else Draws.seeded(seed + 1)
        self.uneven = ""

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        if tuple(shape[:1]) != (self._points * self._rows,):
            self.uneven = f"noise of shape {list(shape)} for {self._points * self._rows} rows"
            return super()._fill(shape, like, distribution)
        first = super()._fill((self._points, *shape[1:]), like, distribution)
        if self._others is None:
            return first.repeat_interleave(self._rows, 0)
        noise = self._others._fill(shape, like, distribution)
        noise[:: self._rows] = first
        return noise


class UniformCounter(Draws):
    """Draws that count the uniforms of each row.

    `uneven` describes requests with unequal numbers for the rows, which are served nevertheless.
    """

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        self._rows = rows
        self.each = 0
        self.uneven = ""

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        if distribution == "uniform_":
            if tuple(shape[:1]) != (self._rows,):
                self.uneven = f"uniforms of shape {list(shape)} for {self._rows} rows"
            else:
                self.each += math.prod(shape[1:])
        return super()._fill(shape, like, distribution)


class TiltedDraws(UniformCounter):
    """Draws with one tilted uniform in a row, where each row takes `each` uniforms."""

    def __init__(self, rows: int, each: int, generator: torch.Generator) -> None:
        super().__init__(rows, generator)
        self._total = each
        untilted = torch.rand(rows, generator=generator) < 0.5
        chosen = torch.randint(each, (rows,), generator=generator)
        self._chosen = torch.where(untilted, -1, chosen)  # [R]
        self._ratio = torch.zeros(rows, dtype=torch.float64)  # Σⱼ r(uⱼ)

    @property
    def weight(self) -> Tensor:
        """The weights [R] after all draws.  Raises UnevenNoise if a row took another number."""
        if self.uneven:
            raise UnevenNoise(self.uneven)
        if self.each != self._total:
            raise UnevenNoise(f"expected {self._total} uniforms a row as before, got {self.each}")
        return 1 / (0.5 + 0.5 * self._ratio / self._total)

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        first = self.each
        noise = super()._fill(shape, like, distribution)
        if distribution != "uniform_" or self.uneven:
            return noise
        u = noise.double().flatten(1)  # [R, places]
        here = (self._chosen >= first) & (self._chosen < self.each)
        rows, places = here.nonzero().squeeze(1), (self._chosen - first)[here]
        v = torch.exp(-_LOG * torch.rand(len(rows), generator=self.generator, dtype=torch.float64))
        low = torch.rand(len(rows), generator=self.generator) < 0.5
        u[rows, places] = torch.where(low, v, 1 - v)
        near = sum(torch.where(x > _LEAST, 1 / x, 0.0) for x in (u, 1 - u))
        self._ratio += (near / (2 * _LOG)).sum(1)
        return u.view(shape).to(noise)
