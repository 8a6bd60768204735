"""Where noise comes from: one replaceable source behind every draw of the vocabulary.

A measurement owns the source and seeds it by what it measures, so that its numbers are
reproducible and the global random state is left untouched.  Whoever wants other draws (an
enumeration, quasi-random numbers) puts another source in its place; no estimator changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


class Draws:
    """Pseudo-random draws from one `torch.Generator` (None: torch's global one).

    `count` is the number of requests served: an estimator that leaves it unchanged is
    deterministic.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.count = 0

    @classmethod
    def seeded(cls, seed: int, device: str | torch.device = "cpu") -> "Draws":
        return cls(torch.Generator(device).manual_seed(seed))

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Exp(1) noise in the dtype and on the device of `like`."""
        return self._fill(shape, like, "exponential_")

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform noise on [0, 1)."""
        return self._fill(shape, like, "uniform_")

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal noise."""
        return self._fill(shape, like, "normal_")

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        """Indices of `samples` independent draws from softmax(logits): [R, ..., K] -> [R, S, ...].

        By inversion, in float64 whatever the dtype of the logits: one uniform a draw instead of
        K exponentials, and a resolution of 2⁻⁵³ where float32 uniforms would stop at 2⁻²⁴.
        """
        cdf = logits.detach().double().softmax(-1).cumsum(-1)  # [R, ..., K]
        u = self.uniform((*cdf.shape[:-1], samples), cdf) * cdf[..., -1:]  # [R, ..., S]
        # right=True steps over categories of probability zero, also when u is exactly 0.
        index = torch.searchsorted(cdf, u, right=True)
        # u · cdf[-1] can round up to cdf[-1] itself.
        return index.clamp_(max=logits.shape[-1] - 1).movedim(-1, 1)

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        self.count += 1
        # Half precision has too few mantissa bits to hold the tails of any of these laws.
        dtype = torch.float32 if like.dtype in _HALF else like.dtype
        noise = torch.empty(shape, dtype=dtype, device=like.device)
        return getattr(noise, law)(generator=self.generator)


_global = Draws()
_current: ContextVar[Draws | None] = ContextVar("draws", default=None)


def draws() -> Draws:
    """The source in force here; outside `drawing_from`, torch's global generator."""
    return _current.get() or _global


@contextmanager
def drawing_from(source: Draws) -> Iterator[Draws]:
    """Within the block every draw of the vocabulary comes from `source`."""
    token = _current.set(source)
    try:
        yield source
    finally:
        _current.reset(token)
