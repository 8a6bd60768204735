"""The density of the Concrete distribution: its integral, its rounding, its divergence.

Maddison, Mnih & Teh, 2017, arXiv 1611.00712, Proposition 1.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.distributions import Dirichlet

from gradest.checks.properties.quadrature import HOW, Rule, rule
from gradest.checks.properties.rows import Estimate, Property, Row, log_alpha, log_beta, subscript
from gradest.concrete import (
    binary_concrete_log_prob,
    concrete_log_prob,
    exp_concrete_log_prob,
)

Temperature = Annotated[float, Ge(0.001), Le(1000)]
Draw = Annotated[int, Ge(10_000), Le(2_000_000)]  # enough for the central limit theorem
Integrable = Annotated[int, Ge(2), Le(3)]  # categories that quadrature can do
Few = Annotated[int, Ge(2), Le(5)]
Many = Annotated[int, Ge(2), Le(20)]

_EXACTLY = 1e-6  # the error that quadrature must resolve, a thousand times its own


def quadrature_estimate(integral: tuple[Tensor, Tensor]) -> Estimate:
    value, error = integral
    return Estimate.within(float(value), float(error), HOW)


@dataclass(eq=False)
class Integrates(Property):
    """∫ p(x) dx = 1: by quadrature up to three categories, by importance sampling for more.

    The proposal is the distribution of x with softmax(log α − λ log x) ~ Dirichlet(1/2, ..., 1/2);
    for Dirichlet(1, ..., 1) it would be the Concrete itself.  The ratio of the densities is
    proportional to the square root of Πₖ rₖ, hence bounded; and the density of the proposal does
    not use the code under test.
    """

    name: ClassVar[str] = "integrates"
    categories: Many = 3
    temperature: Temperature = 0.5
    draws: Draw = 200_000

    def rows(self, seed: int) -> list[Row]:
        logits = log_alpha(self.categories)
        if self.categories > 3:
            estimate = self._by_importance_sampling(logits, seed)
            return [self.row("∫ p(x) dx", estimate, "=", 1.0, 0.05)]
        points = rule(self.categories, self.temperature)
        density = concrete_log_prob(points.log_x, logits, self.temperature)
        estimate = quadrature_estimate(points.integral(density))
        rows = [self.row("∫ p(x) dx", estimate, "=", 1.0, _EXACTLY)]
        if self.categories == 2:
            ratio = points.log_x[:, 1] - points.log_x[:, 0]  # dx = x₀ x₁ dl
            density = binary_concrete_log_prob(ratio, logits[1] - logits[0], self.temperature)
            estimate = quadrature_estimate(points.integral(density - points.log_x.sum(-1)))
            rows.append(self.row("∫ p(l) dl of l = logit x", estimate, "=", 1.0, _EXACTLY))
        return rows

    def _by_importance_sampling(self, logits: Tensor, seed: int) -> Estimate:
        categories, temperature = self.categories, self.temperature
        noise = self.source(seed).normal((self.draws, categories), logits)
        log_r = (2 * noise.abs().log()).log_softmax(-1)  # [R, K]
        log_x = ((logits - log_r) / temperature).log_softmax(-1)
        # The change of variables from r to its log-ratios, dr = Πₖ rₖ d(log-ratios), to those of x,
        # and to x.
        scale = (categories - 1) * math.log(temperature)
        proposal = Dirichlet(torch.full_like(logits, 0.5), validate_args=False)
        log_q = proposal.log_prob(log_r.exp()) + log_r.sum(-1) + scale - log_x.sum(-1)
        weight = (concrete_log_prob(log_x, logits, temperature) - log_q).exp()
        return Estimate.mean(weight)._replace(how=f"importance sampling, {self.draws:,} draws")


@dataclass(eq=False)
class Rounding(Property):
    """P(xₖ is the largest) = αₖ / Σα at every temperature, for the samples and the density."""

    name: ClassVar[str] = "rounding"
    categories: Many = 3
    temperature: Temperature = 0.5
    draws: Draw = 400_000

    def rows(self, seed: int) -> list[Row]:
        logits = log_alpha(self.categories)
        largest = self.draw_samples(logits, self.temperature, self.draws, seed).argmax(-1)
        rows = []
        for k, p in enumerate(logits.softmax(-1).tolist()):
            quantity = f"P(x{subscript(k)} largest)"
            rows.append(self.row(quantity, Estimate.share(largest == k), "=", p, 0.01))
            if self.categories <= 3:
                part = rule(self.categories, self.temperature).where(k)
                density = concrete_log_prob(part.log_x, logits, self.temperature)
                estimate = quadrature_estimate(part.integral(density))
                rows.append(self.row(quantity, estimate, "=", p, _EXACTLY))
        return rows


@dataclass(eq=False)
class Divergence(Property):
    """KL(q‖p) of two Concretes: equal on the simplex and in log space, at least the discrete KL.

        KL = Σₖ δₖ + K E log Σₖ rₖ e^−δₖ,    δ = log α − log β,    r ~ Dirichlet(1, ..., 1)

    which does not depend on a common λ; the mean is a divided difference of
    x^(K−1) (log x − H_(K−1)) over the e^−δₖ.  Applying a function, here rounding, to both random
    variables never increases their divergence: so at other temperatures too it is at least that of
    the discrete distributions.
    """

    name: ClassVar[str] = "divergence"
    categories: Integrable = 3
    temperature: Temperature = 0.5
    draws: Draw = 400_000

    def rows(self, seed: int) -> list[Row]:
        q, p = log_alpha(self.categories), log_beta(self.categories)
        points = rule(self.categories, self.temperature)
        y = self.draw_samples(q, self.temperature, self.draws, seed)
        exact = same_temperature_kl(q, p)
        simplex = self._on_simplex(points, q, p, self.temperature)
        ratio = exp_concrete_log_prob(y, q, self.temperature) - exp_concrete_log_prob(
            y, p, self.temperature
        )
        discrete = float((q.softmax(-1) * (q.log_softmax(-1) - p.log_softmax(-1))).sum())
        other = self._on_simplex(points, q, p, 2 * self.temperature)
        return [
            self.row("KL on the simplex", simplex, "=", exact, _EXACTLY),
            self.row("KL in log space", Estimate.mean(ratio), "=", exact, 0.05 * exact),
            self.row("KL − KL of the discrete", _minus(simplex, discrete), "≥", 0.0, _EXACTLY),
            self.row(
                "KL to twice the temperature − KL of the discrete",
                _minus(other, discrete),
                "≥",
                0.0,
                _EXACTLY,
            ),
        ]

    def _on_simplex(self, points: Rule, q: Tensor, p: Tensor, temperature: float) -> Estimate:
        log_q = concrete_log_prob(points.log_x, q, self.temperature)
        log_p = concrete_log_prob(points.log_x, p, temperature)
        return quadrature_estimate(points.integral(log_q, log_q - log_p))


def same_temperature_kl(q: Tensor, p: Tensor) -> float:
    """The KL of two Concretes of the same temperature, whose ratios of α all differ: [K] twice."""
    delta, categories = q - p, len(q)
    a = (-delta).exp()
    harmonic = sum(1 / k for k in range(1, categories))
    differences = a.unsqueeze(1) - a + torch.eye(categories)  # [i, j]: a_i − a_j, and 1 for j = i
    mean = (a ** (categories - 1) * (a.log() - harmonic) / differences.prod(1)).sum()
    return float(delta.sum() + categories * mean)


def _minus(estimate: Estimate, amount: float) -> Estimate:
    error = estimate.high - estimate.value
    return Estimate.within(estimate.value - amount, error, estimate.how)
