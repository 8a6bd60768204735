"""The limits of the temperature: one-hot samples as it falls, the uniform vector as it rises.

Maddison, Mnih & Teh, 2017, arXiv 1611.00712, Proposition 1; with rates of our own.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, Lt
from torch import Tensor

from gradest.checks.properties.densities import Draw, Many, Temperature
from gradest.checks.properties.rows import Estimate, Property, Row, log_alpha, subscript


@dataclass(eq=False)
class ColdLimit(Property):
    """λ → 0: x is within ε of a vertex, and of vertex k with probability αₖ / Σα.

    With z = log α + G, the first two arrivals of the exponential race give the probability that
    z_k is the largest and exceeds the others by more than d:

        πₖ / (1 + (e^d − 1)(1 − πₖ)).

    xₖ > 1 − ε needs a lead of λ log((1 − ε)/ε), and λ log((K − 1)(1 − ε)/ε) is enough; so its
    probability is between the two, and differs from πₖ by at most πₖ (1 − πₖ) λ log((K − 1)(1 −
    ε)/ε) to first order.  The rate is the λ of the last two rows, whose bounds converge.
    """

    name: ClassVar[str] = "cold_limit"
    categories: Many = 3
    temperature: Annotated[float, Ge(0.001), Le(1)] = 0.01
    epsilon: Annotated[float, Ge(1e-6), Lt(0.5)] = 0.01
    draws: Draw = 400_000

    def rows(self, seed: int) -> list[Row]:
        logits = log_alpha(self.categories)
        pi = logits.softmax(-1)
        y = self.draw_samples(logits, self.temperature, self.draws, seed)
        near = y > math.log1p(-self.epsilon)  # [R, K]
        odds = (1 - self.epsilon) / self.epsilon
        least = self._leads(pi, (self.categories - 1) * odds).tolist()
        most = self._leads(pi, odds).tolist()
        rows = []
        for k in range(self.categories):
            quantity, estimate = f"P(x{subscript(k)} > 1 − ε)", Estimate.share(near[:, k])
            rows.append(self.row(quantity, estimate, "≥", least[k], 0.01))
            rows.append(self.row(quantity, estimate, "≤", most[k], 0.01))
        away = Estimate.share(~near.any(-1)).over(self.temperature)
        for relation, leads in (("≥", most), ("≤", least)):
            bound = (1 - math.fsum(leads)) / self.temperature
            rows.append(self.row("P(no xₖ > 1 − ε) / λ", away, relation, bound, 0.15 * bound))
        return rows

    def _leads(self, pi: Tensor, odds: float) -> Tensor:
        return pi / (1 + math.expm1(self.temperature * math.log(odds)) * (1 - pi))


@dataclass(eq=False)
class HotLimit(Property):
    """λ → ∞: x converges to the uniform vector u, at the rate 1/λ in the mean square.

        | λ √E ‖x − u‖² − √V / K | ≤ √W / (2 λ)
        V = ‖c‖² + (K − 1) σ²,    √W = (‖c‖ + σ (K² + 4.4 K)^¼)²,    σ² = π²/6

    with c the log αₖ minus their mean.  The derivative of softmax at zero is that of the centred
    logits over K, and its second one is at most their square; V is the mean square of the
    centred log α + G, and W at least its mean fourth power, by Minkowski's inequality and the
    fourth central moment 5.4 σ⁴ of a Gumbel.
    """

    name: ClassVar[str] = "hot_limit"
    categories: Many = 3
    temperature: Temperature = 100.0
    draws: Draw = 400_000

    def rows(self, seed: int) -> list[Row]:
        logits, categories = log_alpha(self.categories), self.categories
        centred, sigma = float((logits - logits.mean()).norm()), math.pi / 6**0.5
        limit = (centred**2 + (categories - 1) * sigma**2) ** 0.5 / categories
        fourth = (centred + sigma * (categories**2 + 4.4 * categories) ** 0.25) ** 2
        off = fourth / (2 * self.temperature)
        x = self.draw_samples(logits, self.temperature, self.draws, seed).exp()
        estimate = (
            Estimate.mean((x - 1 / categories).square().sum(-1)).root().over(1 / self.temperature)
        )
        return [
            self.row("λ √E ‖x − u‖²", estimate, "≥", max(limit - off, 0.0), 0.02 * limit + 2 * off),
            self.row("λ √E ‖x − u‖²", estimate, "≤", limit + off, 0.02 * limit),
        ]
