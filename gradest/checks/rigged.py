"""Draws with a purpose: the same noise for all rows, or rare events made common.

Of the n uniforms behind a row one may be tilted towards the ends of (0, 1), which makes an event
of probability 10⁻⁶ that hangs on one of them happen in a row of some hundred.  Half of the rows are
left alone, in the others each uniform is the tilted one equally often:

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
    """Noise that did not come row by row, the same amount for each."""


class SharedNoise(Draws):
    """The first row of each data point gets the same noise, however many rows there are.

    The others get that noise too, or noise of their own.  Noise whose first axis is not that of so
    many rows a point is served as ordinary noise, and `uneven` tells of it: an exception would pass
    through the estimator's code.
    """

    def __init__(self, points: int, rows: int, others_too: bool = True, seed: int = 1) -> None:
        super().__init__(torch.Generator().manual_seed(seed))
        self._points, self._rows = points, rows
        self._others = None if others_too else Draws.seeded(seed + 1)
        self.uneven = ""

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        if tuple(shape[:1]) != (self._points * self._rows,):
            self.uneven = f"noise of {list(shape)} for {self._points * self._rows} rows"
            return super()._fill(shape, like, law)
        first = super()._fill((self._points, *shape[1:]), like, law)
        if self._others is None:
            return first.repeat_interleave(self._rows, 0)
        noise = self._others._fill(shape, like, law)
        noise[:: self._rows] = first
        return noise


class UniformCounter(Draws):
    """Counts the uniforms that each of so many rows takes.

    `uneven` tells where rows do not take the same number; such noise is served all the same.
    """

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        self._rows = rows
        self.each = 0
        self.uneven = ""

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        if law == "uniform_":
            if tuple(shape[:1]) != (self._rows,):
                self.uneven = f"uniforms of {list(shape)} for {self._rows} rows"
            else:
                self.each += math.prod(shape[1:])
        return super()._fill(shape, like, law)


class TiltedDraws(UniformCounter):
    """The same with one uniform of a row tilted, when each row takes `each` of them."""

    def __init__(self, rows: int, each: int, generator: torch.Generator) -> None:
        super().__init__(rows, generator)
        self._total = each
        left_alone = torch.rand(rows, generator=generator) < 0.5
        chosen = torch.randint(each, (rows,), generator=generator)
        self._chosen = torch.where(left_alone, -1, chosen)  # [R]
        self._ratio = torch.zeros(rows, dtype=torch.float64)  # Σⱼ r(uⱼ)

    @property
    def weight(self) -> Tensor:
        """[R], once all are taken.  Raises UnevenNoise where a row took another number, or none."""
        if self.uneven:
            raise UnevenNoise(self.uneven)
        if self.each != self._total:
            raise UnevenNoise(f"{self.each} uniforms a row, and {self._total} before")
        return 1 / (0.5 + 0.5 * self._ratio / self._total)

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        first = self.each
        noise = super()._fill(shape, like, law)
        if law != "uniform_" or self.uneven:
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
