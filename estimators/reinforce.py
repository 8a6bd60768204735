"""REINFORCE: the score-function estimator, with a constant baseline.

    ĝ = (f(z) − c) ∇ log p(z),    z ~ p

Unbiased for every constant c, since E ∇ log p = 0.  The variance depends on c, and is large when f
is far from c: adding 10 to f changes no gradient but multiplies the noise.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8, 1992.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla, sample


@dataclass(eq=False)
class Reinforce(Estimator):
    laws = LAWS - {"constant"}
    evaluations = "1"
    baseline: float = 0.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        return cost + (cost - self.baseline) * nabla(log_prob(logits, z))  # [R]
