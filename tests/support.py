"""What the tests of several files share."""

from collections.abc import Sequence

import pytest
from torch import Tensor

from gradest.randomness import Draws
from gradest.report import figures

EXACT = 1e-10  # float64 laws: 10⁵ times the rounding of numbers of size one

_ALL = figures._all


class Prescribed(Draws):
    """Prescribed draws, one request of each kind; the logits of the categories are kept.

    The kinds are index [R, S, N], exponentials, uniforms and normals.
    """

    def __init__(self, **answers: Tensor) -> None:
        super().__init__()
        self.answers = answers
        self.logits: Tensor | None = None

    def categories(self, logits: Tensor, samples: int) -> Tensor:
        self.logits = logits.detach()
        return self._serve("index", (len(logits), samples, logits.shape[1]))

    def exponential(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("exponentials", shape)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("uniforms", shape)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._serve("normals", shape)

    def _serve(self, kind: str, shape: Sequence[int]) -> Tensor:
        self.count += 1
        answer = self.answers.pop(kind)
        assert answer.shape == tuple(shape)
        return answer


def only_figures(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Reports draw the figures of these names alone, until the patch is undone.

    Figures have tests of their own, and take most of a small run's time.
    """
    patch.setattr(figures, "_all", lambda run: (each for each in _ALL(run) if each[0] in names))


def every_figure(patch: pytest.MonkeyPatch) -> None:
    """Reports draw all figures that the rows have something for, as for users."""
    patch.setattr(figures, "_all", _ALL)
