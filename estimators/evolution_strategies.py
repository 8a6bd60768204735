"""Evolution strategies: a random direction, weighted by how much f rises along it.

    ĝ = (f⁺ − f⁻) ε/(2σ),    f± = f(argmax(log α ± σ ε + G)),    ε ~ N(0, I)

f± are one-sample costs under common Gumbel noise G.  An antithetic pair, whose mean is that of the
one-sided F(log α + σ ε) ε/σ with F = E f: the gradient of F smoothed by the Gaussian.  So the
bias is of order σ², and the value (f⁺ + f⁻)/2, too, is off E f by that much.

f can be any black box; two evaluations.

Salimans, Ho, Chen, Sidor & Sutskever, "Evolution strategies as a scalable alternative to
reinforcement learning", 2017, arXiv 1703.03864.
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
class EvolutionStrategies(Estimator):
    unbiased = False
    laws = LAWS - {"zero sum"}
    degree = math.inf
    limit = {"sigma": 0.2}
    own_distribution = True  # of perturbed logits
    evaluations = "2"
    sigma: Positive = 0.3

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        epsilon = draws().normal(logits.shape, logits)  # [R, N, K]
        shifts = self.sigma * torch.stack([epsilon, -epsilon], 1)  # [R, 2, N, K]
        up, down = perturbed_costs(logits, f, shifts).unbind(1)  # [R]
        g = ((up - down) / (2 * self.sigma))[:, None, None] * epsilon
        return (up + down) / 2 + (g * nabla(logits)).sum((-2, -1))  # [R]
