"""The objectives made of a cost: with a divergence, of several samples, of several layers.

A multi-sample bound is

    L = E_{z₁…z_m ~ q} −log 1/m Σᵢ wᵢ,    −log wᵢ = f(zᵢ)

An estimator that `bounds` takes it as it is.  To every other one the m codes of N latents are one
code of m N latents, all of them with the same logits, and the bound is an ordinary cost of it: a
gradient with respect to the logits adds up those of the copies and what f itself has.

A deep cost is E_{z' ~ q(z' | z)} f'(z').  The estimator that estimates the gradient of its mean
estimates each of these means first: f(z) is its own objective for the next layer, with an unbiased
value if its values are unbiased, and with that layer's gradient in the graph.  So an estimator that
is unbiased for every f, and linear in the values and derivatives of f, is so for all layers at
once.

Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016, arXiv 1509.00519.
"""

import math
from collections.abc import Callable

from torch import Tensor

from gradest.categorical import kl_divergence
from gradest.contracts import Estimator, Task
from gradest.costs import Cost


def analytic_terms(task: Task, logits: Tensor, f: Cost) -> Tensor:
    """What the objective has beside E f, in closed form: [B, N, K] -> [B]."""
    penalty = task.penalty(logits)
    if f.prior is None or f.kl == "sampled":
        return penalty
    return penalty + kl_divergence(logits, f.prior.to(logits)).sum(-1)


def closed_form(task: Task, logits: Tensor, f: Cost) -> Tensor | None:
    """E f as the task writes it down, [B, N, K] -> [B]; None without one, and for a bound."""
    return task.expectation(logits) if f.samples == 1 else None


def owns_kl(estimator: Estimator, f: Cost) -> bool:
    """Whether the estimator's own divergence stands in the place of what is beside E f."""
    return estimator.owns_kl and f.kl == "relaxed"


def bound(cost: Tensor) -> Tensor:
    """−log 1/m Σᵢ exp(−f(zᵢ)): [..., m] -> [...]."""
    return math.log(cost.shape[-1]) - (-cost).logsumexp(-1)


class Bound(Cost):
    """The bound as a cost of one code of m · N latents: [R, ..., m · N, K] -> [R, ...]."""

    def __init__(self, f: Cost) -> None:
        super().__init__(f.fn)
        self._f = f
        self._m = f.samples

    def __call__(self, z: Tensor) -> Tensor:
        return bound(self._f(self._apart(z)))

    def frozen(self, z: Tensor) -> Tensor:
        return bound(self._f.frozen(self._apart(z)))

    def _apart(self, z: Tensor) -> Tensor:
        return z.unflatten(-2, (self._m, -1))  # [R, ..., m, N, K]


class Nested(Cost):
    """A deep cost, the mean over the next layer being what `solve` makes of its logits and cost."""

    def __init__(self, f: Cost, solve: Callable[[Tensor, Cost], Tensor]) -> None:
        super().__init__(f.fn)
        self._f = f
        self._solve = solve

    def __call__(self, z: Tensor) -> Tensor:
        return self._solved(z, frozen=False)

    def frozen(self, z: Tensor) -> Tensor:
        return self._solved(z, frozen=True)

    def _solved(self, z: Tensor, frozen: bool) -> Tensor:
        logits, f = self._f.next(z, frozen)
        return self._solve(logits, nested_cost(f, self._solve)).unflatten(0, z.shape[:-2])


def nested_cost(f: Cost, solve: Callable[[Tensor, Cost], Tensor]) -> Cost:
    """f, or with all further layers of a deep f solved: logits [R, N, K] and a cost give [R].

    Raises ValueError for a bound of several layers: the mean of a bound is not one of its parts'.
    """
    if not f.deep:
        return f
    if f.samples > 1:
        raise ValueError("a bound of several layers of latents has no estimator")
    return Nested(f, solve)


def problem_for(estimator: Estimator, logits: Tensor, f: Cost) -> tuple[Tensor, Cost]:
    """The logits and the cost as the estimator sees them: [R, N, K], or [R, m · N, K]."""
    f = nested_cost(f, estimator)
    return (logits, f) if estimator.bounds else merge_samples(logits, f)


def merge_samples(logits: Tensor, f: Cost) -> tuple[Tensor, Cost]:
    """A problem without a bound: the m codes are one."""
    if f.samples == 1:
        return logits, f
    return logits.repeat(1, f.samples, 1), Bound(f)
