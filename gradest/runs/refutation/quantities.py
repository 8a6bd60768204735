"""The quantities of an estimator on many problems at once, the data points of one task.

They are exact where the draws of an estimate can be enumerated.  Elsewhere every problem gets the
same noise, in batches of replicates, and a quantity has a value for all batches and one without
each of them: a delete-one jackknife gives the standard error of whatever is computed from these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.knobs import build
from gradest.measurement import (
    ExactMoments,
    Replicator,
    all_codes,
    exact_gradient,
    exact_moments,
)
from gradest.randomness import Draws, drawing_from

# Joint outcomes of an estimate up to which a problem of a search is enumerated.
_OUTCOMES = 20_000
_ROWS = 2**16  # outcomes, or replicates, of all problems together that are evaluated at once
# Relative to the largest |f|: biases, gradients and standard deviations up to it are rounding.
_ROUNDING = 1e-10
_TRIED = 64  # rows by which an adaptation without effect is recognised


@dataclass(frozen=True)
class Contestant:
    """An estimator of a claim, with the number of steps by which it adapts to a problem."""

    cls: type[Estimator]
    knobs: tuple[tuple[str, object], ...]
    adapt_steps: int

    def built(self) -> Estimator:
        return build(self.cls, dict(self.knobs))

    def adapts(self, task: Task) -> bool:
        """Whether a step of adaptation changes the estimates, as it need not with these knobs.

        Raises Inapplicable where the estimator does not apply to the task.
        """
        with drawing_from(Draws.seeded(0)):
            replicator = Replicator(self.built(), task)
            if not self.adapt_steps:
                return False
            before = _drawn(replicator, _TRIED, 1)
            replicator.adapt(1)
            return not torch.equal(before, _drawn(replicator, _TRIED, 1))


class Truth(NamedTuple):
    """The true gradients of problems, and the sizes of their costs."""

    gradient: Tensor  # [B, D]
    size: np.ndarray  # [B], the largest |f|

    @classmethod
    def of(cls, task: Task) -> "Truth":
        problem = task.problem()
        with torch.no_grad():
            z = all_codes(problem.logits)
            costs = problem.f(z.expand(len(problem.logits), *z.shape))  # [B, K^N]
        gradient = exact_gradient(problem).gradient.flatten(1)
        return cls(gradient, costs.abs().amax(1).numpy())

    def at(self, point: int) -> "Truth":
        """The truth of one of the problems."""
        own = slice(point, point + 1)
        return Truth(self.gradient[own], self.size[own])


class Noise(NamedTuple):
    """The replicates of every problem, in batches, where draws cannot be enumerated."""

    seed: int
    replicates: int
    batches: int


# name -> a quantity of one estimator: [1 + J, B], or [1, B] where it is exact.
Statistics = dict[str, np.ndarray]


class _CommonDraws(Draws):
    """A source that gives every data point the same noise: that of R rows, for each of B points."""

    def __init__(self, seed: int, points: int) -> None:
        super().__init__(torch.Generator().manual_seed(seed))
        self._points = points

    def _fill(self, shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
        rows, *rest = shape
        if rows % self._points:
            return super()._fill(shape, like, distribution)
        one = super()._fill((rows // self._points, *rest), like, distribution)
        return one.repeat(self._points, *[1] * len(rest))


def statistics(
    contestant: Contestant, task: Task, truth: Truth, noise: Noise, adapt: bool = False
) -> Statistics:
    """The quantities of an estimator on the data points of a task, each by itself.

    With `adapt` it adapts first, to all of them together, so that there should be one.  Raises
    Inapplicable where the estimator does not apply to the task.
    """
    source = Draws.seeded(noise.seed)
    with drawing_from(source):
        replicator = Replicator(contestant.built(), task)
        replicator.adapt(contestant.adapt_steps if adapt else 0)
    points = len(replicator.logits)
    rows = max(_ROWS // points, 1)

    def cosines(gradient: Tensor) -> Tensor:  # [B, R, D] -> [B, R, 1]
        along = torch.einsum("brd,bd->br", gradient.double(), truth.gradient)
        length = gradient.double().norm(dim=-1) * truth.gradient.norm(dim=-1, keepdim=True)
        return torch.where(length > 0, along / length, 0.0).unsqueeze(-1)

    exact = exact_moments(replicator, _OUTCOMES, cosines, rows)
    if exact is not None:
        parts = _of_exact(exact, truth)
    else:
        with drawing_from(_CommonDraws(noise.seed, points)):
            parts = _of_replicates(replicator, cosines, truth, noise)
    return _quantities(replicator, parts, truth)


class _Parts(NamedTuple):
    """What quantities are computed from: [1 + J, B] each."""

    bias_sq: np.ndarray
    along: np.ndarray  # the bias times g
    along_sq: np.ndarray  # its square, without its noise
    variance: np.ndarray
    value: np.ndarray
    cosine: np.ndarray


def _of_exact(exact: ExactMoments, truth: Truth) -> _Parts:
    bias = exact.mean.flatten(1) - truth.gradient
    along = (bias * truth.gradient).sum(-1)
    variance = exact.variance.flatten(1).sum(-1)
    columns = (bias.square().sum(-1), along, along.square(), variance)
    columns += (exact.value, exact.more_mean[:, 0])
    return _Parts(*(column.numpy()[None] for column in columns))


def _of_replicates(
    replicator: Replicator, cosines: Callable[[Tensor], Tensor], truth: Truth, noise: Noise
) -> _Parts:
    size = noise.replicates // noise.batches
    means, squares, others = [], [], []
    for _ in range(noise.batches):
        gradient, value = replicator.each(size)  # [B, R, D], [B, R]
        gradient = gradient.double() - truth.gradient.unsqueeze(1)
        mean = gradient.mean(1)  # [B, D], the bias
        means.append(mean)
        squares.append((gradient - mean.unsqueeze(1)).square().sum((1, 2)))
        along = cosines(gradient + truth.gradient.unsqueeze(1))[..., 0]
        others.append(torch.stack([value.double().mean(1), along.mean(1)]))
    mean, square, other = (torch.stack(each).numpy() for each in (means, squares, others))
    g = truth.gradient.numpy()
    every = _pooled(mean, square, other, size, g)
    without = [
        _pooled(*(np.delete(x, j, 0) for x in (mean, square, other)), size, g)
        for j in range(noise.batches)
    ]
    return _Parts(*(np.stack(columns) for columns in zip(every, *without, strict=True)))


def _pooled(
    mean: np.ndarray, square: np.ndarray, other: np.ndarray, size: int, g: np.ndarray
) -> _Parts:
    """The moments of some batches together: squares without their noise, which may be negative."""
    total = len(mean) * size
    each = np.einsum("jbd,bd->jb", mean, g)
    along = each.mean(0)
    along_sq = np.square(along) - each.var(0, ddof=1) / len(each)
    centre = mean.mean(0)  # [B, D]
    between = size * np.square(mean - centre).sum((0, 2))
    variance = (square.sum(0) + between) / (total - 1)
    bias_sq = np.square(centre).sum(-1) - variance / total
    return _Parts(bias_sq, along, along_sq, variance, *other.mean(0))


def _quantities(replicator: Replicator, parts: _Parts, truth: Truth) -> Statistics:
    rounding = _ROUNDING * truth.size
    bias_sq = np.where(np.abs(parts.bias_sq) > rounding**2, parts.bias_sq, 0.0)
    variance = np.where(parts.variance > rounding**2, parts.variance, 0.0)
    norm = truth.gradient.norm(dim=-1).numpy()
    norm = np.where(norm > rounding, norm, 0.0) + np.zeros_like(variance)
    bias = np.sign(bias_sq) * np.sqrt(np.abs(bias_sq))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(norm > 0, bias / norm, np.nan)
        snr = np.where(variance > 0, norm**2 / variance, np.nan)
        scale = np.where(norm > 0, 1 + parts.along / norm**2, np.nan)
        across_sq = parts.bias_sq - parts.along_sq / norm**2
        across_sq = np.where(np.abs(across_sq) > rounding**2, across_sq, 0.0)
        mean_sq = np.square(scale * norm) + np.maximum(across_sq, 0.0)
        rescaled = np.sign(across_sq) * np.sqrt(np.abs(across_sq) / mean_sq)
        rescaled = np.where(mean_sq > 0, rescaled, 1.0)  # a mean of zero has no direction
    return {
        "bias": bias,
        "relative_bias": relative,
        "best_scale": scale,
        "relative_bias_rescaled": np.where(norm > 0, rescaled, np.nan),
        "variance": variance,
        "mse": np.maximum(bias_sq, 0.0) + variance,
        "work_variance": variance * replicator.evaluations,
        "cosine": np.where(norm > 0, parts.cosine, np.nan),
        "snr": snr,
        "value": parts.value,
        "gradient_norm": norm,
        "evaluations": np.full_like(variance, replicator.evaluations),
        "gradient_evaluations": np.full_like(variance, replicator.gradient_evaluations),
    }


def _drawn(replicator: Replicator, rows: int, seed: int) -> Tensor:
    with drawing_from(Draws.seeded(seed)):
        return replicator.each(rows)[0]
