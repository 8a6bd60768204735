"""The problems of the battery: asymmetric, curved within a latent and coupled between latents."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task
from gradest.costs import KL, Cost, Objective, Problem
from gradest.measurement import ExactGradient, all_codes, exact_gradient, merge_samples

Change = Callable[[Tensor], Tensor]

_CACHED = 64  # tasks whose truths are cached; a battery has a dozen


class Polynomial(Task):
    """A cost of degree 1, 2 or 3 in each latent; w differs between data points.

        1:  f(z) = c + u + e,    e = Σ_{n<m} vₙ vₘ
        2:  f(z) = c + u + u v
        3:  f(z) = c + u + u v + v³

    with uₙ = w₁ₙ · zₙ, vₙ = w₂ₙ · zₙ, and u and v their sums over the latents.  With a prior [N, K]
    a divergence is added, or one that the estimator owns.
    """

    def __init__(
        self,
        name: str,
        logits: Any,
        seed: int,
        offset: float = 0.0,
        degree: int = 3,
        prior: Any = None,
        kl: KL = "relaxed",
    ) -> None:
        self.name = f"test problem {name!r}"
        self.degree = degree
        self._logits = torch.as_tensor(logits, dtype=torch.float64)  # [B, N, K]
        draws = torch.Generator().manual_seed(seed)
        self._weights = torch.randn(2, *self._logits.shape, generator=draws, dtype=torch.float64)
        self._offset = offset
        self._prior = None if prior is None else torch.as_tensor(prior, dtype=torch.float64)
        self._kl = None if prior is None else kl

    def problem(self, batch: Any = None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
            middle = (slice(None), *(None,) * (z.ndim - 3))
            parts = ((z * w.to(z)[middle]).sum(-1) for w in self._weights)  # [B, ..., N] each
            (u, _), (v, squares) = ((x.sum(-1), x.square().sum(-1)) for x in parts)
            if self.degree == 1:
                return self._offset + u + (v**2 - squares) / 2
            return self._offset + u + u * v + (v**3 if self.degree == 3 else 0.0)

        logits = self._logits.clone()  # so that a plugin that writes into them changes only its own
        return Problem(logits, Cost(cost, prior=self._prior, kl=self._kl, logits=logits))


class SeveralSamples(Task):
    """An objective of several samples of the cost of a task, with the terms of its prior.

    The cost is −log w of a bound.
    """

    def __init__(self, task: Task, objective: Objective = "bound", samples: int = 2) -> None:
        self.name = f"{task.name}, {objective} of {samples} samples"
        self._base = task, objective, samples

    def problem(self, batch: Any = None) -> Problem:
        task, objective, samples = self._base
        logits, f = task.problem(batch)
        joint = f.bounded(samples) if objective == "bound" else f.best_of(samples)
        return Problem(logits, joint)


class Linear(Task):
    """f(z) = Σₙ wₙ · zₙ at one data point, with probabilities and weights [N, K]."""

    def __init__(self, name: str, pi: Any, weights: Any) -> None:
        self.name = f"test problem {name!r}"
        self._pi = torch.as_tensor(pi, dtype=torch.float64)
        self._weights = torch.as_tensor(weights, dtype=torch.float64)

    def problem(self, batch: Any = None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [1, ..., N, K] -> [1, ...]
            return (z * self._weights.to(z)).sum((-2, -1))

        return Problem(self._pi.log().unsqueeze(0), Cost(cost))

    def indicators(self) -> list["Linear"]:
        """The same logits with z_nk as the cost, for each n and k."""
        shape = self._pi.shape
        units = torch.eye(self._pi.numel()).unflatten(1, shape)
        return [Linear(f"entry {i} of {self.name}", self._pi, w) for i, w in enumerate(units)]


_ONE = [[[0.4, -0.7, 0.0, 0.8]]]  # four categories, so that two neighbours are not all others
_COUPLED = [[[0.5, -0.7, 0.2], [-0.3, 0.9, 0.0]], [[-0.8, 0.4, 0.3], [0.6, 0.0, -0.7]]]
_BITS = [[[0.8, -0.3], [-0.4, 0.1], [0.2, 1.2], [0.1, -0.6]]]
_FAR = [[[0.6, -0.2], [-0.9, 0.1]], [[0.1, 0.4], [0.3, -0.8]]]


_PRIOR = [[-0.6, 0.3, 0.9], [0.2, -1.1, 0.4]]


# Built once, so that one enumeration of a problem serves all laws and plugins of a process.
_ALONE = Polynomial("one categorical", _ONE, seed=0)
_PAIR = Polynomial("coupled categoricals", _COUPLED, seed=1)
_FOUR = Polynomial("coupled bits", _BITS, seed=2)
# An offset changes no gradient, but magnifies errors of a baseline or score.
_OFFSET = Polynomial("bits far from zero", _FAR, seed=3, offset=10.0)
_OF_SAMPLES = [(_ALONE, 3), (_PAIR, 2), (_OFFSET, 3)]


@cache
def with_prior(kl: KL) -> Task:
    return Polynomial("categoricals with a prior", _COUPLED, seed=1, prior=_PRIOR, kl=kl)


@cache
def of_samples(task: Task, objective: Objective, samples: int = 2) -> Task:
    return SeveralSamples(task, objective, samples)


def battery(cls: type[Estimator] = Estimator) -> list[Task]:
    """The problems for a class: of its objective, and with a prior if it owns a divergence."""
    prior = with_prior("relaxed")
    if cls.objective:
        with_terms = [(prior, 2)] if cls.objective == "bound" else []
        return [of_samples(task, cls.objective, m) for task, m in [*_OF_SAMPLES, *with_terms]]
    tasks: list[Task] = [_ALONE, _PAIR, _FOUR, _OFFSET]
    return [*tasks, prior] if cls.owns_kl else tasks


@cache
def of_degree(degree: int) -> tuple[Task, ...]:
    """Problems on which a method that is unbiased up to that degree has no bias."""
    return (
        Polynomial(f"categoricals of degree {degree}", _COUPLED, seed=1, degree=degree),
        Polynomial(f"bits of degree {degree}", _BITS, seed=2, degree=degree),
    )


@cache
def skewed() -> tuple[Linear, ...]:
    """Affine costs with one large value that is rare, where a normalised cost turns the gradient.

    Also far from uniform, so that the samples of another distribution show.
    """
    return (
        Linear("skewed categories", [[0.15, 0.83, 0.02]], [[0.0, 0.07, 16.0]]),
        Linear("skewed bits", [[0.83, 0.17], [0.98, 0.02]], [[0.0, 0.07], [0.0, 16.0]]),
    )


@cache
def rare(size: float) -> tuple[Task, ...]:
    """Problems with categories of probability e^−size, where clamping and rounding cause a bias."""
    categories = [[[size, 0.0, 0.5]], [[0.5 - size, 0.2, -size]]]
    bits = [[[size, 0.0], [0.0, size - 0.5]]]
    return (
        Polynomial(f"rare categories, e^−{size:g}", categories, seed=1),
        Polynomial(f"rare bits, e^−{size:g}", bits, seed=2),
    )


class Changed(Task):
    """A task whose logits, codes, costs or prior are changed by functions."""

    def __init__(
        self,
        task: Task,
        logits: Change = lambda x: x,
        codes: Change = lambda x: x,
        costs: Change = lambda x: x,
        prior: Change = lambda x: x,
    ) -> None:
        self.name = task.name
        self._base = task, logits, codes, costs, prior

    def problem(self, batch: Any = None) -> Problem:
        task, logits, codes, costs, prior = self._base
        own, f = task.problem(batch)
        other = None if f.prior is None else prior(f.prior)
        changed = f.changed(lambda z: costs(f.fn(codes(z))), prior=other)
        return Problem(logits(own), changed.replicated(f.points, logits(own)))


def extreme(size: float, cls: type[Estimator]) -> list[Task]:
    """Logits ±size: each category alone high, alone low, all of them high, all low.

    There is also a problem with a prior, if the class handles priors itself.
    """
    categories = cls.categories or 3
    top = torch.eye(categories)
    up = torch.cat([top, 1 - top, torch.ones(1, categories), torch.zeros(1, categories)])
    logits = size * (2 * up - 1)  # [B, K]
    logits = torch.stack([logits, logits.roll(1, 0)], 1)
    plain = Polynomial(f"logits ±{size:g}", logits, seed=4)
    if not (cls.objective == "bound" or cls.owns_kl):
        return [plain]
    prior = torch.linspace(-1.0, 1.0, 2 * categories).view(2, categories)
    return [plain, Polynomial(f"logits ±{size:g} with a prior", logits, seed=4, prior=prior)]


@lru_cache(_CACHED)
def truth(task: Task) -> ExactGradient:
    """E f and its gradient, enumerated once for each task."""
    return exact_gradient(task.problem())


@lru_cache(_CACHED)
def span(task: Task) -> float:
    """The difference between the largest and the smallest cost."""
    logits, f = merge_samples(*task.problem())
    z = all_codes(logits)  # [K^N, N, K]
    cost = f(z.expand(len(logits), *z.shape))  # [B, K^N]
    return float(cost.max() - cost.min())
