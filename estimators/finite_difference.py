"""Central finite differences: each logit is moved up and down by itself.

    ĝ_nk = (f⁺ − f⁻)/(2h),    f± = f(argmax(log α ± h e_nk + G))

f± are one-sample costs, not expectations, under Gumbel noise G common to all 2NK of them.  The
mean is the difference quotient of F = E f, so the bias is of order h², and the value, the mean of
all costs, is off E f by that much too; the variance is of order 1/h.  ĝ sums to zero over two
categories, but not over more.

f can be any black box; 2NK evaluations.  The rates are those of the book's chapter 7.

Glasserman, "Monte Carlo methods in financial engineering", Springer, 2003.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla
from gradest.knobs import Positive

from ._perturbed import perturbed_costs


@dataclass(eq=False)
class FiniteDifference(Estimator):
    unbiased = False
    laws = LAWS - {"zero sum"}
    degree = math.inf
    limit = {"h": 0.2}
    own_distribution = True  # of perturbed logits
    evaluations = "2 * N * K"
    h: Positive = 0.5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        rows, latents, categories = logits.shape
        unit = torch.eye(latents * categories).to(logits).unflatten(1, (latents, categories))
        shifts = self.h * torch.cat([unit, -unit]).expand(rows, -1, -1, -1)  # [R, 2·N·K, N, K]
        costs = perturbed_costs(logits, f, shifts)  # [R, 2·N·K]
        up, down = costs.unflatten(1, (2, latents, categories)).unbind(1)  # [R, N, K]
        g = (up - down) / (2 * self.h)
        return costs.mean(1) + (g * nabla(logits)).sum((-2, -1))  # [R]
