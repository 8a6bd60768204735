"""Off-policy REINFORCE: flatter draws, weighted by how much likelier they should be.

    ĝ = p(z)/q(z) f(z) ∇ log p(z),    z ~ q = softmax(c log α),    0 < c < 1

Unbiased for every c, since q reaches what p reaches.  The weight p(z)/q(z), with q held constant,
has the gradient p(z)/q(z) ∇ log p(z), so that the weighted cost is value and estimate at once.

Owen, "Monte Carlo theory, methods and examples", 2013.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, sample
from gradest.knobs import Probability


@dataclass(eq=False)
class OffPolicy(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"
    power: Probability = 0.5  # c

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        flat = self.power * logits.detach()  # [R, N, K]
        z = sample(flat)  # [R, N, K]
        weight = (log_prob(logits, z) - log_prob(flat, z)).exp()  # [R]
        return weight * f(z)  # [R]
