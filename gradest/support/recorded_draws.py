"""Draws that are recorded, and drawn again: one computation twice on the same noise."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from gradest.errors import UsageError
from gradest.randomness import Draws


class Drawn(NamedTuple):
    """One request of noise and its answer."""

    kind: str
    answer: Tensor


class RecordedDraws(Draws):
    """The draws of another source, which are kept in `record`."""

    def __init__(self, source: Draws) -> None:
        super().__init__(source.generator)
        self.lean = source.lean
        self.record: list[Drawn] = []
        self._source = source

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._keep("exponential", self._source.exponential(shape, like))

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._keep("uniform", self._source.uniform(shape, like))

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._keep("normal", self._source.normal(shape, like))

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        return self._keep("categories", self._source.categories(logits, samples))

    def _keep(self, kind: str, answer: Tensor) -> Tensor:
        self.count += 1
        self.record.append(Drawn(kind, answer.clone()))  # the caller may change its own in place
        return answer


class ReplayedDraws(Draws):
    """Recorded draws, one after the other, as often as they were requested.

    Raises UsageError for a request that was not recorded, of another kind or for another shape.
    """

    def __init__(self, record: Sequence[Drawn], lean: bool) -> None:
        super().__init__()
        self.lean = lean
        self._record = record

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._next("exponential", lambda x: x.shape == tuple(shape))

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._next("uniform", lambda x: x.shape == tuple(shape))

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._next("normal", lambda x: x.shape == tuple(shape))

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        rows, *middle, _ = logits.shape
        return self._next("categories", lambda x: x.shape == (rows, samples, *middle))

    def _next(self, kind: str, fits: Callable[[Tensor], bool]) -> Tensor:
        recorded = self._record[self.count] if self.count < len(self._record) else None
        if recorded is None or recorded.kind != kind or not fits(recorded.answer):
            raise UsageError(
                f"expected the same requests of noise as when it was recorded, got request "
                f"{self.count + 1} of kind {kind!r}, which was not made then"
            )
        self.count += 1
        return recorded.answer.clone()
