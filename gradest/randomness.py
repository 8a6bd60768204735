"""The source of noise: one replaceable object behind every draw of `gradest.categorical`.

A measurement owns the source and seeds it by what it measures, so that its numbers are
reproducible and the global random state stays as it is.  For other draws, such as an enumeration or
quasi-random numbers, another source takes its place, without a change of any estimator.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from gradest.errors import ContractError

_HALF = (torch.float16, torch.bfloat16)


class Draws:
    """Pseudo-random draws from one `torch.Generator` (None: torch's global one).

    `count` is the number of requests served: an estimator that leaves it unchanged is
    deterministic.  `nbytes` is the memory of their noise and tables of probabilities.
    """

    # Whether `gradest.categorical` may use whichever kernels are the fastest.  Those of a seeded
    # source stay the same, and so does every measured number.
    lean = False

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.count = 0
        self.nbytes = 0

    @classmethod
    def seeded(cls, seed: int, device: str | torch.device = "cpu") -> "Draws":
        return cls(torch.Generator(device).manual_seed(seed))

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Exp(1) noise in the dtype and on the device of `like`.

        E = −log(1 − u) of a float64 uniform, for any dtype: three times as fast as
        `Tensor.exponential_` on a CPU, and the tails reach 36 where float32 uniforms end at 16.
        """
        u = self.uniform(shape, like.new_empty(0, dtype=torch.float64))
        # u = 0 would give E = 0 and an infinite Gumbel; half a step of u's grid replaces it.
        return u.neg_().log1p_().neg_().clamp_(min=2.0**-54).to(_noise_dtype(like))

    def log_exponential(self, like: Tensor) -> Tensor:
        """log E for Exp(1) noise E like `like`: standard Gumbel noise, but for its sign."""
        return self.exponential(like.shape, like).log()

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform noise on [0, 1)."""
        return self._fill(shape, like, "uniform_")

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal noise."""
        return self._fill(shape, like, "normal_")

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        """Indices of `samples` independent draws from softmax(logits): [R, ..., K] -> [R, S, ...].

        By inversion, in float64 for logits of any dtype: one uniform a draw instead of
        K exponentials, and a resolution of 2⁻⁵³ where float32 uniforms would stop at 2⁻²⁴.

        Raises ContractError for logits without an axis of rows.
        """
        check_rows(logits.shape)
        weight = logits.detach().double()
        weight = (weight - weight.amax(-1, keepdim=True)).exp_()
        cdf = weight.cumsum(-1)  # unnormalised, [R, ..., K]
        self._count_bytes(weight, cdf)
        u = self.uniform((*cdf.shape[:-1], samples), cdf) * cdf[..., -1:]  # [R, ..., S]
        # right=True skips categories of probability zero, also when u is exactly 0.
        index = torch.searchsorted(cdf, u, right=True)
        # u · cdf[-1] can round up to cdf[-1] itself.
        return index.clamp_(max=logits.shape[-1] - 1).movedim(-1, 1)

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        noise = torch.empty(shape, dtype=_noise_dtype(like), device=like.device)
        self._count_request()
        self._count_bytes(noise)
        return getattr(noise, distribution)(generator=self.generator)

    def _count_request(self) -> None:
        self.count += 1

    def _count_bytes(self, *tensors: Tensor) -> None:
        self.nbytes += sum(tensor.nbytes for tensor in tensors)


class BlockDraws(Draws):
    """Draws for rows that come in equal blocks, each block from a generator of its own.

    The first axis of a request holds the rows.  It is split into as many parts as there are seeds,
    so that a block gets the same numbers alone and next to any others.
    """

    def __init__(self, seeds: Sequence[int], device: str | torch.device = "cpu") -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        super().__init__()

    @property
    def generator(self) -> torch.Generator:
        """That of the only block.  Raises ContractError where there are several."""
        if len(self._generators) > 1:
            raise ContractError(
                "draws of several blocks of rows have no common generator; draw with "
                "gradest.categorical"
            )
        return self._generators[0]

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        """Ignored: the blocks keep their generators."""

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        blocks = len(self._generators)
        if not shape or shape[0] % blocks:
            raise ContractError(
                f"expected draws for rows in {blocks} equal blocks, got a request of shape "
                f"{list(shape)}; draw for every row, on the first axis"
            )
        noise = torch.empty(shape, dtype=_noise_dtype(like), device=like.device)
        self._count_request()
        self._count_bytes(noise)
        for part, generator in zip(noise.chunk(blocks), self._generators, strict=True):
            getattr(part, distribution)(generator=generator)
        return noise


def check_rows(shape: Sequence[int]) -> None:
    """Raise ContractError unless this can be the shape of logits [R, ..., K]."""
    if len(shape) < 2:
        raise ContractError(
            f"expected logits [R, ..., K] of draws, with an axis of rows, got shape {list(shape)} "
            "(check 'rows'); draw for every row, as sample(logits) does with the logits of all rows"
        )


def _noise_dtype(like: Tensor) -> torch.dtype:
    """The dtype of noise: half precision has too few mantissa bits for the tails."""
    return torch.float32 if like.dtype in _HALF else like.dtype


def seed_of(text: str) -> int:
    """A seed for draws that are named by a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def global_states() -> dict[str, object]:
    """library -> the state of its global generator, for comparisons."""
    numpys = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (numpys[1].tobytes(), *numpys[2:]),
        "random": random.getstate(),
    }


def changed_global_states(before: Mapping[str, object]) -> str:
    """The libraries whose global state has changed, separated by commas."""
    return ", ".join(name for name, state in global_states().items() if state != before[name])


@contextmanager
def isolated_global_randomness(seed: int) -> Iterator[None]:
    """Seed the global states of torch, numpy and random within the block; restore them after it.

    So code that draws from them is reproducible, and leaves no trace in them.
    """
    numpys, pythons = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(enabled=True):
        _seed_torch(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(pythons)


def _seed_torch(seed: int) -> None:
    """Seed torch's global generators.

    `torch.manual_seed` remembers a seed for each kind of device that is not in use yet, together
    with a stack trace, which takes milliseconds.  Without an accelerator none will ever be in use.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


FEW = 2048  # numbers, below which the time of an operation hardly depends on them


class _GlobalDraws(Draws):
    """Draws from torch's global generator, uncounted, and with few operations where they are few.

    A training step draws a few hundred numbers, whose time is that of the calls.  `torch.compile`
    traces it, as it keeps no count that would differ from call to call.
    """

    lean = True

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        if like.numel() > FEW or like.shape != shape or like.dtype in _HALF:
            return super().exponential(shape, like)
        return torch.empty_like(like).exponential_()

    def log_exponential(self, like: Tensor) -> Tensor:
        if like.numel() > FEW or like.dtype in _HALF:
            return super().log_exponential(like)
        return torch.empty_like(like).exponential_().log_()

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        if logits.numel() * samples > FEW:
            return super().categories(logits, samples)
        phi = logits.detach().unsqueeze(1)  # [R, 1, ..., K]
        if samples > 1:
            phi = phi.expand(-1, samples, *phi.shape[2:])
        e = torch.empty_like(phi, dtype=torch.float64).exponential_()
        return (phi - e.log_()).argmax(-1)  # the Gumbel-max trick

    def _count_request(self) -> None:
        pass

    def _count_bytes(self, *tensors: Tensor) -> None:
        pass


_global = _GlobalDraws()
_current: ContextVar[Draws | None] = ContextVar("draws", default=None)
_open_blocks = 0  # of `drawing_from`, in all threads
_counting = Lock()


def draws() -> Draws:
    """The current source; outside `drawing_from`, torch's global generator."""
    # torch.compile traces the number, though not the variable: within a block it leaves its graph.
    if not _open_blocks:
        return _global
    return _current.get() or _global


@contextmanager
def drawing_from(source: Draws) -> Iterator[Draws]:
    """Take every draw within the block from `source`."""
    token = _current.set(source)
    _count_blocks(1)
    try:
        yield source
    finally:
        _count_blocks(-1)
        _current.reset(token)


def _count_blocks(change: int) -> None:
    global _open_blocks
    with _counting:
        _open_blocks += change
