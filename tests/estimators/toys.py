"""Tasks with one data point, and exact moments of estimates, for the tests of estimators."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import log_prob
from gradest.measurement import ExactMoments, Replicator
from gradest.measurement.enumerated_moments import visit_outcomes
from gradest.measurement.enumerated_truth import all_codes, exact_gradient
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT, Prescribed

BITS = [(0.3, 0.45), (0.8, 0.45), (0.5, 0.499), (0.1, 0.1)]  # θ and t of the published figures

bits = pytest.mark.parametrize(("theta", "t"), BITS)
thirds = pytest.mark.parametrize("t", [0.45, 1.2])
PI = torch.tensor([4, 1, 2], dtype=torch.float64) / 7  # α = (2, ½, 1)
VALUES = torch.arange(3, dtype=torch.float64)


class Given(Task):
    """One data point with these logits [N, K] and this cost."""

    def __init__(self, logits: Tensor, cost: Callable[[Tensor], Tensor]) -> None:
        self.logits, self.cost = logits, cost

    def problem(self, batch: Any = None) -> Problem:
        return Problem(self.logits.unsqueeze(0), Cost(self.cost))


def doubles(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def bit(theta: float, t: float) -> Task:
    return gradest.make_task("bernoulli", theta=(theta,), target=t)


def affine(logits: Tensor, weights: Tensor) -> Task:
    return Given(logits, lambda z: (z * weights.to(z)).sum((-2, -1)))


def logit(theta: float) -> float:
    return math.log(theta / (1 - theta))


def estimates(estimator: Estimator, task: Task, rows: int, source: Draws) -> Tensor:
    """ĝ of that many rows on a task with one data point: [R, N, K]."""
    problem = task.problem()
    logits = problem.logits.expand(rows, -1, -1).clone().requires_grad_()
    with drawing_from(source):
        objective = estimator(logits, problem.f.replicated(1))
    (gradient,) = torch.autograd.grad(objective.sum(), logits)
    return gradient


def values(estimator: Estimator, task: Task, rows: int, source: Draws) -> Tensor:
    problem = task.problem()
    with drawing_from(source):
        return estimator(problem.logits.expand(rows, -1, -1), problem.f.replicated(1)).detach()


def every_draw(estimator: Estimator, task: Task) -> tuple[Tensor, Tensor]:
    """Probability [R] and ĝ [R, N, K] of each of the K^N outcomes, in the order of `all_codes`."""
    logits = task.problem().logits
    codes = all_codes(logits)  # [R, N, K]
    index = codes.argmax(-1).unsqueeze(1)  # [R, 1, N]
    result = estimates(estimator, task, len(codes), Prescribed(index=index))
    return log_prob(logits, codes).exp(), result


def mean_and_variance(probability: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinate by coordinate: [R, N, K] -> [N, K] each."""
    mean = torch.einsum("r,rnk->nk", probability, x)
    return mean, torch.einsum("r,rnk->nk", probability, (x - mean).square())


def truth(task: Task) -> Tensor:
    return exact_gradient(task.problem()).gradient[0]  # [N, K]


def derivatives(task: Task, z: Tensor) -> Tensor:
    """f'(z), for z [R, N, K]."""
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(task.problem().f(z.unsqueeze(0)).sum(), z)
    return slope


def jacobian(p: Tensor) -> Tensor:
    """J(p) = diag(p) − ppᵀ: [..., K] -> [..., K, K]."""
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


def applied(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def close(actual: Tensor, expected: Any, tolerance: float = EXACT) -> bool:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return torch.allclose(actual.squeeze(), expected.squeeze(), rtol=0, atol=tolerance)


def both(x: float) -> list[float]:
    """With two categories the coordinates are ∓ that of the one logit, so a trace doubles."""
    return [-x, x]


def polynomial(seed: int, degree: int, latents: int = 2, categories: int = 3) -> Task:
    """Coupled, and of this degree within a latent."""
    draws = torch.Generator().manual_seed(seed)
    w = torch.randn(2, latents, categories, generator=draws).double()
    logits = torch.randn(latents, categories, generator=draws).double()

    def cost(z: Tensor) -> Tensor:
        u, v = ((z * x.to(z)).sum((-2, -1)) for x in w)
        return 1 + u * v + v + (v**3 if degree == 3 else 0)

    return Given(logits, cost)


def enumerated(name: str, task: Task, **knobs: Any) -> ExactMoments:
    """The exact moments over all outcomes of the draws, with one data point: [1, N, K]."""
    result = visit_outcomes(Replicator(gradest.make_estimator(name, **knobs), task))
    assert isinstance(result, ExactMoments), result
    return result


def relative_bias(mean: Tensor, task: Task) -> float:
    """‖E ĝ − g‖/‖g‖."""
    g = truth(task)
    return float((mean - g).norm() / g.norm())


def cosine(mean: Tensor, task: Task) -> float:
    return float(torch.cosine_similarity(mean.flatten(), truth(task).flatten(), dim=0))


def trace(variance: Tensor) -> float:
    return float(variance.sum())


def pair() -> Task:
    """Two latents of the default `categorical`, whose values add up in its parabola."""
    logits = doubles([2.0, 0.5, 1.0]).log().expand(2, 3)
    return Given(logits, lambda z: ((z @ VALUES.to(z)).sum(-1) - 0.45).square())


def table(latents: int, categories: int, seed: int) -> Task:
    """A random cost for each code, multilinear off the vertices, at random logits."""
    draws = torch.Generator().manual_seed(seed)
    costs = torch.randn((categories,) * latents, generator=draws).double()
    logits = torch.randn(latents, categories, generator=draws).double()

    def cost(z: Tensor) -> Tensor:
        total = costs.to(z).expand(*z.shape[:-2], *costs.shape)
        for n in range(latents):
            own = z[..., n, :].unflatten(-1, (-1, *(1,) * (latents - n - 1)))
            total = (total * own).sum(z.ndim - 2)
        return total

    return Given(logits, cost)
