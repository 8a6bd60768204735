"""Measure-valued (weak) derivative: differences of f between two categories.

    ĝₙ_k = πₙ_k (1 − πₙ_k) [f(zₙ←k) − f(zₙ←j')],    z ~ p,    j' ~ πₙ(· | ≠ k)

from ∂π/∂log α_k = π_k (1 − π_k) [e_k − π(· | ≠ k)], a multiple of the difference of two
distributions.  zₙ←k is z with latent n set to k.  Both terms share the other latents of z (they are
coupled), and j' is drawn anew for each n and k.  Unbiased; `local_expectation`, its mean over j',
varies no more.  For K = 2 there is one other category, and the two are the same.

Needs f on the vertices alone.  Term by term it takes 2 N K evaluations, but all points are among
the N (K − 1) + 1 that differ from z in at most one latent, and f is evaluated once at each.

Pflug, "Optimization of stochastic models: the interface between simulation and optimization",
Kluwer, 1996; Mohamed, Rosca, Figurnov & Mnih, "Monte Carlo gradient estimation in machine
learning", 2019, arXiv 1906.10652.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import gains, nabla, sample, without_each


@dataclass(eq=False)
class MeasureValued(Estimator):
    laws = LAWS - {"zero sum"}
    evaluations = "1 + N * (K - 1)"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        gain = gains(f.frozen, z, cost)  # [R, N, K], f(zₙ←k) − f(z)
        log_pi = logits.log_softmax(-1)  # [R, N, K]
        others = without_each(log_pi)  # [R, N, K, K], log π(j and j ≠ k)
        other = sample(others.flatten(1, 2)).view_as(others)  # [R, N, K, K], j' one-hot
        difference = gain - (other * gain.unsqueeze(-2)).sum(-1)  # [R, N, K]
        constant = (log_pi + others.logsumexp(-1)).exp()  # [R, N, K], π (1 − π)
        return cost + (constant * difference * nabla(logits)).sum((-2, -1))  # [R]
