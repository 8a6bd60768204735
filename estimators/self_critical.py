"""Self-critical sequence training: REINFORCE with f at the likeliest z as baseline.

    ĝ = (f(z) − f(ẑ)) ∇ log p(z),    z ~ p,    ẑₙ = argmax_k πₙ_k

ẑ is not random, so ĝ is unbiased.  It moves towards whatever beats the mode.  As a baseline f(ẑ)
can be worse than none, where the mode's cost lies far from the others'.  2 evaluations of f, on
the vertices alone.  ReMax (Li et al., 2023, arXiv 2310.10505) is the same estimator.

Rennie, Marcheret, Mroueh, Ross & Goel, "Self-critical sequence training for image captioning",
2017, arXiv 1612.00563.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import likeliest, log_prob, nabla, sample


@dataclass(eq=False)
class SelfCritical(Estimator):
    laws = LAWS
    aliases = ("remax", "scst")
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        greedy = likeliest(logits)  # [R, N, K]
        cost = f(z)  # [R]
        return cost + (cost - f.frozen(greedy)) * nabla(log_prob(logits, z))  # [R]
