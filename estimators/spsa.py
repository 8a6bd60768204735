"""SPSA: all logits are moved at once, up or down at random.

    ĝ = (f⁺ − f⁻)/(2c) Δ⁻¹,    f± = f(argmax(log α ± c Δ + G)),    Δ_nk = ±1

f± are one-sample costs under common Gumbel noise G, which has a variance of order 1/c where
independent noise has 1/c².  The mean is that of the difference quotient of F = E f, so the
bias is of order c² and the value (f⁺ + f⁻)/2, too, is off E f by that much.

f can be any black box; two evaluations.  Spall's c falls as t^−0.101 in a descent; here it is
fixed.

Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
approximation", IEEE Transactions on Automatic Control 37, 1992.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla
from gradest.knobs import Positive
from gradest.randomness import draws

from ._perturbed import perturbed_costs


@dataclass(eq=False)
class SPSA(Estimator):
    unbiased = False
    laws = LAWS - {"zero sum"}
    degree = math.inf
    limit = {"c": 0.2}
    own_distribution = True  # of perturbed logits
    evaluations = "2"
    c: Positive = 0.3

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        delta = 1 - 2 * (draws().uniform(logits.shape, logits) < 0.5).to(logits)  # [R, N, K]
        shifts = self.c * torch.stack([delta, -delta], 1)  # [R, 2, N, K]
        up, down = perturbed_costs(logits, f, shifts).unbind(1)  # [R]
        g = ((up - down) / (2 * self.c))[:, None, None] / delta
        return (up + down) / 2 + (g * nabla(logits)).sum((-2, -1))  # [R]
