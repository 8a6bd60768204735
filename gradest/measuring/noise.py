"""Whether an estimator's noise is each row's own, and of the source in force: seen in a few calls.

Where two rows get equal draws their estimates are equal, unless there is noise of another source.
What an estimator keeps generators for, it can draw from; reset may draw a state, but not
the noise of the calls to come.
"""

import copy
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradest.errors import ContractError
from gradest.measuring.replicator import Replicator, another
from gradest.randomness import Draws, drawing_from, global_states

_MOST, _LEAST = 64, 2  # rows that are looked at, as many as fit at once: of costly ones few do
_RESETS = 64  # another state may give the same estimate by chance
_REQUESTS = 1000  # after which the noise is each row's own, or some estimators would never end
_NUMBERS = 2, 3  # of rows, for which noise is asked
_OWN = "draw by gradest.categorical or gradest.randomness, for every row its own"


class Watched(Draws):
    """Draws from a generator, with the shape of each request noted."""

    def __init__(self, generator: torch.Generator | None) -> None:
        super().__init__(generator)
        self.shapes: list[tuple[int, ...]] = []

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        self.shapes.append(tuple(shape))
        return super()._fill(shape, like, law)


class _InPairs(Watched):
    """Two and two of so many rows get the same noise.

    Rows are known by the requests `before`, for `few` rows.  An axis of rows and something else,
    such as samples, has one number throughout.
    """

    def __init__(
        self,
        device: torch.device,
        before: Sequence[tuple[int, ...]],
        few: int,
        rows: int,
        seed: int,
    ) -> None:
        super().__init__(torch.Generator(device).manual_seed(seed))
        self._before = before
        self._few, self._rows = few, rows

    def follows(self) -> bool:
        """Whether there were as many requests as before, each in proportion to the rows."""
        return len(self.shapes) == len(self._before) and all(
            len(shape) == len(before)
            and math.prod(shape) * self._few == math.prod(before) * self._rows
            for shape, before in zip(self.shapes, self._before, strict=True)
        )

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        number, shape = len(self.shapes), tuple(shape)
        before = self._before[number] if number < min(len(self._before), _REQUESTS) else ()
        if len(before) != len(shape):
            return super()._fill(shape, like, law)
        small, doubled = list(shape), []
        for axis, (size, other) in enumerate(zip(shape, before, strict=True)):
            if (size, other) == (self._rows, self._few):
                small[axis] = size // 2
                doubled.append(axis)
            elif size != other:
                small[axis] = 1
        noise = super()._fill(small, like, law)
        self.shapes[-1] = shape
        for axis in doubled:
            noise = noise.repeat_interleave(2, axis)
        return noise.expand(shape).clone()


class _OneNumber(Watched):
    """One number for all of a request, so that all rows fare alike; another one for the next."""

    def _fill(self, shape: Sequence[int], like: Tensor, law: str) -> Tensor:
        if len(self.shapes) >= _REQUESTS:
            return super()._fill(shape, like, law)
        noise = super()._fill([1] * len(shape), like, law)
        self.shapes[-1] = tuple(shape)
        return noise.expand(tuple(shape)).clone()


def refuse_odd_noise(
    replicator: Replicator, pilot: Sequence[tuple[int, ...]], few: int, chunk: int
) -> None:
    """Raises ContractError for noise that rows share, or that is of no source that a seed sets.

    `pilot` are the requests for noise of one call of `few` rows a data point; a `chunk` of them
    fits at once.
    """
    points, rows = len(replicator.logits), max(_LEAST, min(_MOST, chunk) // 2 * 2)
    device, estimator = replicator.logits.device, replicator.estimator
    kept = _own_states(estimator)
    # A tie that rounding breaks one way or the other is not met twice.
    for seed in (0, 1):
        globals_ = global_states() if seed else None
        source = _InPairs(device, pilot, few * points, rows * points, seed)
        with drawing_from(source):
            gradient, _ = replicator.each(rows)  # [B, R, N · K]
        if advanced := [name for name, x in _own_states(estimator).items() if x != kept.get(name)]:
            raise ContractError(
                f"{estimator.name}: a call draws from {advanced[0]}, a generator of its own, which "
                f"no seed of a measurement brings back (law 'seed'); {_OWN}"
            )
        if not source.follows():
            _refuse_shared(replicator)
            return
        if _alike(gradient[:, ::2], gradient[:, 1::2]):
            return
        # What is drawn from there, row by row as it seems, is of the seed as well.
        if seed and global_states() != globals_:
            return
    raise ContractError(
        f"{estimator.name}: rows of equal draws have unequal estimates (law 'seed'): there is "
        f"noise of another source, the same in each call; {_OWN}"
    )


def _refuse_shared(replicator: Replicator) -> None:
    """Raises ContractError for a request of noise that is not in proportion to the rows.

    So it is for sure where rows fare alike: otherwise an estimator that draws again for some rows
    may ask for any number.
    """
    device, asked = replicator.logits.device, []
    for number in _NUMBERS:
        source = _OneNumber(torch.Generator(device).manual_seed(0))
        with drawing_from(source):
            replicator.each(number)
        asked.append(source.shapes)
    if len(asked[0]) != len(asked[1]) or len(asked[0]) > _REQUESTS:
        return
    fewer, more = _NUMBERS
    for shape, other in zip(*asked, strict=True):
        if math.prod(shape) * more != math.prod(other) * fewer:
            raise ContractError(
                f"{replicator.estimator.name}: rows share noise (law 'rows'): noise of shape "
                f"{list(shape)} is drawn for {fewer} rows and {list(other)} for {more}; every row "
                "is a replicate and draws its own, as sample(logits) does with the logits of all "
                "rows"
            )


def refuse_shared_by_state(replicator: Replicator, drawn_by_reset: bool) -> None:
    """Raises ContractError for an estimator that draws nothing in a call, and yet is random."""
    name = replicator.estimator.name
    with drawing_from(Draws.seeded(0, replicator.logits.device)):
        first, *others = (replicator.each(1)[0] for _ in range(3))
        if not all(_alike(first, x) for x in others):
            raise ContractError(
                f"{name}: rows share noise (law 'rows'): a call draws nothing, and yet the next "
                f"one differs; {_OWN}"
            )
        if not drawn_by_reset:
            return
        other = copy.copy(replicator)
        other.estimator = another(replicator.estimator)
        for _ in range(_RESETS):
            other.reset()
            if not _alike(first, other.each(1)[0]):
                raise ContractError(
                    f"{name}: rows share noise (law 'rows'): reset draws it once for all of them, "
                    f"and a call draws none; {_OWN}"
                )


def _own_states(estimator: object) -> dict[str, Any]:
    """attribute -> the state of the generator that it holds"""
    states: dict[str, Any] = {}
    for name, value in vars(estimator).items():
        if isinstance(value, torch.Generator):
            states[name] = value.get_state().numpy().tobytes()
        elif isinstance(value, random.Random):
            states[name] = value.getstate()
        elif isinstance(value, np.random.Generator):
            states[name] = repr(value.bit_generator.state)
        elif isinstance(value, np.random.RandomState):
            states[name] = repr(value.get_state())
    return states


def _alike(a: Tensor, b: Tensor) -> bool:
    """Up to rounding, which a difference quotient magnifies; NaN is alike."""
    size = a.nan_to_num(0, 0, 0).abs().max()
    allowed = 1e-6 if a.dtype == torch.float64 else 0.3
    return bool((a - b).abs().nan_to_num(0).max() <= allowed * size)
