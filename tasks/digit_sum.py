"""The sum of the digits in N images, from a classifier that is unsure of each.

    f(z) = (Σₙ v · zₙ − y)²    or    f(z) = 1{Σₙ v · zₙ ≠ y},    v = (0, 1, …, 9)

y is the sum of the true digits of the N images of a data point, and log α their logits by a softmax
regression that was trained for `steps` steps on other images: few steps leave it unsure.  The
squared error takes all methods; off the vertices it is the same parabola.  The indicator is a
black box: it says whether the sum is wrong, and nothing of any single digit.

E f is exact at any N.  The sum has the distribution π₁ * … * π_N, a convolution of N distributions
on 0, …, 9, which takes 10 N additions of at most 9 N + 1 numbers.

The indicator is the supervision of the task MNIST-addition of

Manhaeve, Dumančić, Kimmig, Demeester & De Raedt, "DeepProbLog: neural probabilistic logic
programming", 2018, arXiv 1805.10872.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from gradest import Cost, Problem, Task
from gradest.errors import KnobError
from gradest.knobs import AtLeast1

from ._digits import CLASSES, HELD_OUT, classifier, labelled_digits


@dataclass(eq=False)
class DigitSum(Task):
    latents: AtLeast1 = 3
    points: AtLeast1 = 2
    cost: Literal["squared", "wrong"] = "squared"
    steps: AtLeast1 = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points * self.latents > HELD_OUT:
            raise KnobError(
                f"{self.name}: points = {self.points} and latents = {self.latents}; expected "
                f"points · latents of at most {HELD_OUT}, the images that are held out"
            )

    @property
    def relaxable(self) -> bool:
        return self.cost == "squared"

    def problem(self, batch: Any = None) -> Problem:
        weight, bias = classifier(self.steps)
        pixels = labelled_digits("test").pixels[: self.points * self.latents]
        logits = (pixels @ weight + bias).unflatten(0, (self.points, self.latents))

        def cost(z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
            total = (z @ self._values.to(z)).sum(-1)
            error = total - self._sums.to(z).reshape(-1, *[1] * (total.ndim - 1))
            return error.square() if self.relaxable else (error.abs() > 0.5).to(z)

        return Problem(logits, Cost(cost))

    def expectation(self, logits: Tensor) -> Tensor:
        pi = logits.softmax(-1)  # [B, N, K]
        if not self.relaxable:
            p = _distribution_of_sum(pi)  # [B, 9 N + 1]
            right = torch.arange(p.shape[1]) == self._sums.unsqueeze(1)
            # A sum of what is wrong: 1 − P(right) would cancel where the classifier is sure.
            return torch.where(right, 0.0, p).sum(1)
        mean = pi @ self._values  # [B, N]
        spread = self._values - mean.unsqueeze(-1)  # [B, N, K]
        return (mean.sum(1) - self._sums).square() + (pi * spread.square()).sum((1, 2))

    @property
    def _values(self) -> Tensor:
        """v: [K]."""
        return torch.arange(CLASSES, dtype=torch.float64)

    @property
    def _sums(self) -> Tensor:
        """y: [B]."""
        labels = labelled_digits("test").labels[: self.points * self.latents]
        return labels.unflatten(0, (self.points, self.latents)).sum(1)


def _distribution_of_sum(pi: Tensor) -> Tensor:
    """The probabilities of 0, …, N (K − 1) as the sum of N categories: [B, N, K] -> [B, ...].

    All terms are positive, so that no digits cancel, however small a probability is.
    """
    total, *others = pi.unbind(1)
    last = pi.shape[-1] - 1
    for p in others:
        shifted = (pad(total * p[:, k : k + 1], (k, last - k)) for k in range(last + 1))
        total = torch.stack(tuple(shifted)).sum(0)
    return total
