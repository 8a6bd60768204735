"""Local expectation gradients: each latent summed out exactly, the others sampled.

    ĝₙ = ∇ Σ_k πₙ_k f(zₙ←k) = J(πₙ) [f(zₙ←k)]_k,    z ~ p,    J(π) = diag(π) − ππᵀ

zₙ←k is z with latent n set to category k; one z serves all latents, which are independent.  ĝₙ is
the mean of REINFORCE given the other latents, so it is unbiased, and varies no more than REINFORCE
with any baseline that reads those.  Where f is a sum over latents, and so for N = 1, it does not
vary at all.

Needs f on the vertices alone, at N (K − 1) + 1 of them: f(z) is common to all latents.  It is
subtracted, since a constant changes no gradient and differences lose no digits.

Titsias & Lázaro-Gredilla, "Local expectation gradients for black box variational inference",
2015, arXiv 1503.01494.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import gains, nabla, sample, softmax


@dataclass(eq=False)
class LocalExpectation(Estimator):
    laws = LAWS
    evaluations = "1 + N * (K - 1)"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        gain = gains(f.frozen, z, cost)  # [R, N, K], f(zₙ←k) − f(z)
        return cost + (gain * nabla(softmax(logits))).sum((-2, -1))  # [R]
