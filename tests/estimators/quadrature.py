"""Exact moments of estimates over prescribed draws, and rules that integrate over noise."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.checks.problems import Polynomial
from gradest.measurement import enumerated_truth
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT, Prescribed

QUADRATURE = 1e-8  # what the rules below reach, as their convergence shows


def ready(name: str, task: Task, steps: int = 0, **knobs) -> Estimator:
    """An estimator as a measurement would prepare it."""
    estimator = gradest.make_estimator(name, **knobs)
    problem = task.problem()
    with drawing_from(Draws.seeded(0)):
        estimator.reset(problem.logits)
        for _ in range(steps):
            estimator.adapt(problem.logits.repeat(64, 1, 1), problem.f.replicated(1))
    return estimator


def estimates(estimator: Estimator, task: Task, rows: int, source: Draws) -> tuple[Tensor, Tensor]:
    """ĝ [R, N, K] and value [R] of that many rows on a task with one data point."""
    problem = task.problem()
    logits = problem.logits.repeat(rows, 1, 1).requires_grad_()
    with drawing_from(source):
        value = estimator(logits, problem.f.replicated(1))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return gradient, value.detach()


class Moments:
    """Mean and variance of ĝ, coordinate by coordinate, and the mean value."""

    def __init__(self, weight: Tensor, gradient: Tensor, value: Tensor) -> None:
        self.mean = torch.einsum("r,rnk->nk", weight, gradient)
        self.variance = torch.einsum("r,rnk->nk", weight, (gradient - self.mean).square())
        self.value = weight @ value

    @property
    def trace(self) -> float:
        return float(self.variance.sum())


def moments(estimator: Estimator, task: Task, weight: Tensor, *answers: Tensor) -> Moments:
    assert weight.sum() == pytest.approx(1, abs=1e-9)
    return Moments(weight, *estimates(estimator, task, len(weight), Prescribed(*answers)))


def assert_close(actual: Tensor, expected: Tensor | Sequence, tolerance: float = EXACT) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    gap = (actual.squeeze() - expected.squeeze()).abs().max()
    assert gap <= tolerance, f"differs by {gap:.2g}"


def assert_unbiased(result: Moments, task: Task, tolerance: float = EXACT) -> None:
    truth = enumerated_truth.exact_gradient(task.problem())
    assert truth.gradient.abs().max() > 100 * tolerance
    assert_close(result.mean, truth.gradient[0], tolerance)
    assert_close(result.value, truth.value, tolerance)


def gauss(nodes: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights on an interval."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    return low + (high - low) * (node + 1) / 2, (high - low) * weight / 2


def product(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Independent (points [P, ...], weights [P]) -> [R, parts, ...] and [R]."""
    choice = torch.cartesian_prod(*(torch.arange(len(w)) for _, w in parts))
    choice = choice.reshape(-1, len(parts))
    points = torch.stack([x[choice[:, i]] for i, (x, _) in enumerate(parts)], 1)
    weight = math.prod(w[choice[:, i]] for i, (_, w) in enumerate(parts))
    return points, weight


def every_index(task: Task, samples: int) -> tuple[Tensor, Tensor]:
    """All draws of S samples [R, S, N] and their probabilities [R]."""
    log_p = task.problem().logits[0].log_softmax(-1)  # [N, K]
    latents, categories = log_p.shape
    one = torch.cartesian_prod(*[torch.arange(categories)] * (samples * latents))
    index = one.reshape(-1, samples, latents)
    return index, log_p[torch.arange(latents), index].sum((1, 2)).exp()


def thetas(task: Task) -> list[float]:
    return task.problem().logits[0].softmax(-1)[:, 1].tolist()


def coupled(latents: int, categories: int, seed: int = 0) -> Task:
    draws = torch.Generator().manual_seed(100 + seed)
    logits = torch.randn(1, latents, categories, generator=draws, dtype=torch.float64)
    return Polynomial("coupled", logits, seed)


class Affine(Task):
    """f(z) = 3 + w · z."""

    def problem(self, batch=None) -> Problem:
        weight = torch.tensor([[0.3, -1.0], [1.5, 0.1], [-0.4, 0.8]])
        logits = torch.tensor([[[0.2, -0.5], [0.0, 0.7], [1.0, 0.0]]], dtype=torch.float64)
        return Problem(logits, Cost(lambda z: 3 + (z * weight.to(z)).sum((-2, -1))))


def over_samples(name: str, task: Task, samples: int, steps: int = 0, **knobs) -> Moments:
    index, weight = every_index(task, samples)
    return moments(ready(name, task, steps, samples=samples, **knobs), task, weight, index)
