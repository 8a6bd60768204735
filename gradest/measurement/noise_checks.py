"""A check, in a few calls, that an estimator draws noise of its own for each row, from the source.

Two rows that get equal draws have equal estimates, unless there is noise from another source.  An
estimator may also draw from generators that it holds.  `reset` may draw a state, but not the noise
of later calls.
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
from gradest.measurement.replicator import Replicator, copy_of
from gradest.randomness import Draws, drawing_from, global_states

_MOST, _LEAST = 64, 2  # rows that are compared, as many as fit into memory at once
_RESETS = 64  # since another state may give the same estimate by chance
_REQUESTS = 1000  # after which all rows get noise of their own, or some estimators would not end
_ROWS = 2, 3  # numbers of rows whose requests are compared
_HOW_TO_DRAW = "draw with gradest.categorical or gradest.randomness, separately for every row"


class RequestRecorder(Draws):
    """Draws from a generator that record the shape of each request."""

    def __init__(self, generator: torch.Generator | None) -> None:
        super().__init__(generator)
        self.shapes: list[tuple[int, ...]] = []

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        self.shapes.append(tuple(shape))
        return super()._fill(shape, like, distribution)


class _PairedDraws(RequestRecorder):
    """Draws in which rows 0 and 1 get the same noise, so do rows 2 and 3, and so on.

    The axis of rows is recognised by comparison with `before`, the requests for `few` rows.  An
    axis that combines rows with something else, such as samples, gets one number throughout.
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
        """Whether there were as many requests as before, each proportional to the rows."""
        return len(self.shapes) == len(self._before) and all(
            len(shape) == len(before)
            and math.prod(shape) * self._few == math.prod(before) * self._rows
            for shape, before in zip(self.shapes, self._before, strict=True)
        )

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        number, shape = len(self.shapes), tuple(shape)
        before = self._before[number] if number < min(len(self._before), _REQUESTS) else ()
        if len(before) != len(shape):
            return super()._fill(shape, like, distribution)
        small, doubled = list(shape), []
        for axis, (size, other) in enumerate(zip(shape, before, strict=True)):
            if (size, other) == (self._rows, self._few):
                small[axis] = size // 2
                doubled.append(axis)
            elif size != other:
                small[axis] = 1
        noise = super()._fill(small, like, distribution)
        self.shapes[-1] = shape
        for axis in doubled:
            noise = noise.repeat_interleave(2, axis)
        return noise.expand(shape).clone()


class _ConstantDraws(RequestRecorder):
    """Draws with one number for all of a request, so that all rows are treated equally."""

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        if len(self.shapes) >= _REQUESTS:
            return super()._fill(shape, like, distribution)
        noise = super()._fill([1] * len(shape), like, distribution)
        self.shapes[-1] = tuple(shape)
        return noise.expand(tuple(shape)).clone()


def check_noise(
    replicator: Replicator, pilot: Sequence[tuple[int, ...]], few: int, chunk: int
) -> None:
    """Raise ContractError for noise that rows share, or whose source no seed sets.

    `pilot` are the requests for noise of one call with `few` rows a data point; `chunk` rows fit
    into memory at once.
    """
    points, rows = len(replicator.logits), max(_LEAST, min(_MOST, chunk) // 2 * 2)
    device, estimator = replicator.logits.device, replicator.estimator
    before = _own_states(estimator)
    # Twice, since rounding may break a tie one way or the other once.
    for seed in (0, 1):
        globals_ = global_states() if seed else None
        source = _PairedDraws(device, pilot, few * points, rows * points, seed)
        with drawing_from(source):
            gradient, _ = replicator.each(rows)  # [B, R, N · K]
        if advanced := [
            name for name, x in _own_states(estimator).items() if x != before.get(name)
        ]:
            raise ContractError(
                f"{estimator.name}: a call draws from {advanced[0]}, a generator of its own, which "
                f"the seed of a measurement does not reset (check 'seed'); {_HOW_TO_DRAW}"
            )
        if not source.follows():
            _check_requests(replicator)
            return
        if _equal_up_to_rounding(gradient[:, ::2], gradient[:, 1::2]):
            return
        # Draws from the global states, which seem to be row by row, depend on the seed as well.
        if seed and global_states() != globals_:
            return
    raise ContractError(
        f"{estimator.name}: rows with equal draws have unequal estimates (check 'seed'), so that "
        f"there is noise from another source, the same in each call; {_HOW_TO_DRAW}"
    )


def _check_requests(replicator: Replicator) -> None:
    """Raise ContractError for a request of noise that is not proportional to the number of rows.

    All rows are treated equally here: otherwise an estimator that draws again for some rows could
    request any number.
    """
    device, requests = replicator.logits.device, []
    for number in _ROWS:
        source = _ConstantDraws(torch.Generator(device).manual_seed(0))
        with drawing_from(source):
            replicator.each(number)
        requests.append(source.shapes)
    if len(requests[0]) != len(requests[1]) or len(requests[0]) > _REQUESTS:
        return
    fewer, more = _ROWS
    for shape, other in zip(*requests, strict=True):
        if math.prod(shape) * more != math.prod(other) * fewer:
            raise ContractError(
                f"{replicator.estimator.name}: rows share noise (check 'rows'): {fewer} rows draw "
                f"noise of shape {list(shape)}, {more} rows of shape {list(other)}; draw for every "
                "row, as sample(logits) does with the logits of all rows"
            )


def check_state_noise(replicator: Replicator, drawn_by_reset: bool) -> None:
    """Raise ContractError for an estimator that draws nothing in a call and is random."""
    name = replicator.estimator.name
    with drawing_from(Draws.seeded(0, replicator.logits.device)):
        first, *others = (replicator.each(1)[0] for _ in range(3))
        if not all(_equal_up_to_rounding(first, x) for x in others):
            raise ContractError(
                f"{name}: rows share noise (check 'rows'): a call draws nothing, but the next call "
                f"differs; {_HOW_TO_DRAW}"
            )
        if not drawn_by_reset:
            return
        other = copy.copy(replicator)
        other.estimator = copy_of(replicator.estimator)
        for _ in range(_RESETS):
            other.reset()
            if not _equal_up_to_rounding(first, other.each(1)[0]):
                raise ContractError(
                    f"{name}: rows share noise (check 'rows'): reset draws it once for all rows, "
                    f"and a call draws nothing; {_HOW_TO_DRAW}"
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


def _equal_up_to_rounding(a: Tensor, b: Tensor) -> bool:
    """Whether they are equal, or NaN, up to rounding, which a difference quotient magnifies."""
    size = a.nan_to_num(0, 0, 0).abs().max()
    allowed = 1e-6 if a.dtype == torch.float64 else 0.3
    return bool((a - b).abs().nan_to_num(0).max() <= allowed * size)
