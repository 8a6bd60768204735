"""The objectives built from a cost: with a divergence, of several samples, of several layers.

A multi-sample bound is

    L = E_{z₁…z_m ~ q} −log 1/m Σᵢ wᵢ,    −log wᵢ = f(zᵢ)

and the minimum over m samples, the best of m, is

    J = E_{z₁…z_m ~ q} minᵢ f(zᵢ)

An estimator whose claim `objective` names it takes it as it is.  For every other one the m codes of
N latents are one code of m N latents, all of them with the same logits, and the objective is the
mean of an ordinary cost of that code: the gradient with respect to the logits is the sum over the
copies, plus that of f itself.

A deep cost is E_{z' ~ q(z' | z)} f'(z').  The estimator that estimates the gradient of its mean
estimates each of these means first: f(z) is its own objective for the next layer, with an unbiased
value if its values are unbiased, and with that layer's gradient in the graph.  So an estimator that
is unbiased for every f, and linear in the values and derivatives of f, is unbiased for all layers
together.

Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016, arXiv 1509.00519; Walder &
Karkhanis, "Pass@K policy optimization: solving harder reinforcement learning problems", 2025,
arXiv 2505.15201.
"""

import math
from collections.abc import Callable

from torch import Tensor

from gradest.categorical import kl_divergence
from gradest.contracts import Estimator, Task
from gradest.costs import Cost, Objective


def analytic_terms(task: Task, logits: Tensor, f: Cost) -> Tensor:
    """The terms of the objective other than E f, in closed form: [B, N, K] -> [B]."""
    penalty = task.penalty(logits)
    if f.prior is None or f.kl == "sampled":
        return penalty
    return penalty + kl_divergence(logits, f.prior.to(logits)).sum(-1)


def closed_form(task: Task, logits: Tensor, f: Cost) -> Tensor | None:
    """The closed form of E f, [B, N, K] -> [B]; None without one, and for several samples."""
    return task.expectation(logits) if f.samples == 1 else None


def owns_kl(estimator: Estimator, f: Cost) -> bool:
    """Whether the estimator's own divergence replaces the one in closed form."""
    return estimator.owns_kl and f.kl == "relaxed"


def bound(cost: Tensor) -> Tensor:
    """−log 1/m Σᵢ exp(−f(zᵢ)): [..., m] -> [...]."""
    return math.log(cost.shape[-1]) - (-cost).logsumexp(-1)


def minimum(cost: Tensor) -> Tensor:
    """minᵢ f(zᵢ): [..., m] -> [...]."""
    return cost.amin(-1)


_OBJECTIVES: dict[Objective, Callable[[Tensor], Tensor]] = {"bound": bound, "minimum": minimum}


class Merged(Cost):
    """An objective of m samples as a cost of one code of m · N latents.

    [R, ..., m · N, K] -> [R, ...]
    """

    def __init__(self, f: Cost) -> None:
        super().__init__(f.fn)
        self._f = f
        self._m = f.samples
        self._of_samples = _OBJECTIVES[f.objective]

    def __call__(self, z: Tensor) -> Tensor:
        return self._of_samples(self._f(self._samples(z)))

    def frozen(self, z: Tensor) -> Tensor:
        return self._of_samples(self._f.frozen(self._samples(z)))

    def _samples(self, z: Tensor) -> Tensor:
        return z.unflatten(-2, (self._m, -1))  # [R, ..., m, N, K]


class Nested(Cost):
    """A deep cost whose mean over the next layer `solve` computes from its logits and cost."""

    def __init__(self, f: Cost, solve: Callable[[Tensor, Cost], Tensor]) -> None:
        super().__init__(f.fn)
        self._f = f
        self._solve = solve

    def __call__(self, z: Tensor) -> Tensor:
        return self._value(z, frozen=False)

    def frozen(self, z: Tensor) -> Tensor:
        return self._value(z, frozen=True)

    def _value(self, z: Tensor, frozen: bool) -> Tensor:
        logits, f = self._f.next(z, frozen)
        return self._solve(logits, nested_cost(f, self._solve)).unflatten(0, z.shape[:-2])


def nested_cost(f: Cost, solve: Callable[[Tensor, Cost], Tensor]) -> Cost:
    """The cost f, with all further layers of a deep f solved: logits [R, N, K] and a cost give [R].

    Raises ValueError for several samples of several layers, whose objective is not a mean over the
    inner layers.
    """
    if not f.deep:
        return f
    if f.samples > 1:
        raise ValueError(
            "expected one layer of latents for an objective of several samples, got several; no "
            "estimator takes them"
        )
    return Nested(f, solve)


def problem_for(estimator: Estimator, logits: Tensor, f: Cost) -> tuple[Tensor, Cost]:
    """The logits and the cost that the estimator gets.

    [R, N, K], or [R, m · N, K] for m samples that are merged.
    """
    f = nested_cost(f, estimator)
    native = estimator.objective == f.objective
    return (logits, f) if native else merge_samples(logits, f)


def merge_samples(logits: Tensor, f: Cost) -> tuple[Tensor, Cost]:
    """The problem of one sample, in which the m codes of N latents are one code of m · N."""
    if f.samples == 1:
        return logits, f
    return logits.repeat(1, f.samples, 1), Merged(f)
