"""REINFORCE with the variance-minimising baseline, computed by enumeration.

    ĝₙ_k = (f(z) − b) sₙ_k,    z ~ p,    s = ∇ log p(z) = z − π

    coordinate:  b = bₙ_k = E[f sₙ_k²] / E[sₙ_k²] = (1 − πₙ_k) E[f | zₙ = k] + πₙ_k E[f | zₙ ≠ k]
    scalar:      b = E[f ‖s‖²] / E[‖s‖²], the mean of bₙ_k with weights E[sₙ_k²] = πₙ_k (1 − πₙ_k)

Unbiased, since b is not random.  Among the constants, `scalar` has the least summed variance, and
`coordinate` the least in each coordinate; its estimates do not sum to zero over K > 2 categories.

It shows what a constant baseline can do at best.  b takes K^N evaluations of f besides the one at
z, all on the vertices; estimated from z itself it would bias ĝ.

Greensmith, Bartlett & Baxter, "Variance reduction techniques for gradient estimates in
reinforcement learning", JMLR 5, 2004.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample, softmax, without_each
from gradest.measurement import all_codes


@dataclass(eq=False)
class OptimalBaseline(Estimator):
    # All outcomes are visited for every estimate anew: beyond this one would wait for hours.
    outcomes = 1000
    laws = LAWS
    evaluations = "1 + K ** N"
    kind: Literal["scalar", "coordinate"] = "scalar"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        score = z - softmax(logits)  # [R, N, K]
        advantage = cost[:, None, None] - self._baseline(logits, f)
        return cost + (advantage * score * nabla(logits)).sum((-2, -1))  # [R]

    def _baseline(self, logits: Tensor, f: Cost) -> Tensor:
        """[R, N, K], or [R, 1, 1] for one that all coordinates share."""
        codes = all_codes(logits)  # [C, N, K] with C = K^N
        cost = f.frozen(codes.expand(len(logits), *codes.shape))  # [R, C]
        log_pi = logits.log_softmax(-1)  # [R, N, K]
        # e⁻¹⁰⁰⁰ is zero in every dtype, as e^(−∞) is, but 0 · (−∞) would be NaN.
        floored = log_pi.clamp(min=-1e3).unsqueeze(1)
        own = (floored * codes).sum(-1)  # [R, C, N], log π of the latent's category
        rest = (own.sum(-1, keepdim=True) - own).exp()  # [R, C, N], p of the other latents
        there = torch.einsum("rc,rcn,cnk->rnk", cost, rest, codes)  # E[f | zₙ = k]
        others = without_each(log_pi)  # [R, N, K, K]
        elsewhere = (softmax(others) * there.unsqueeze(-2)).sum(-1)  # [R, N, K], E[f | zₙ ≠ k]
        log_not_pi = others.logsumexp(-1)  # [R, N, K], log(1 − π)
        baseline = log_not_pi.exp() * there + log_pi.exp() * elsewhere  # [R, N, K]
        if self.kind == "coordinate":
            return baseline
        weight = (log_pi + log_not_pi).flatten(1).softmax(-1).view_as(baseline)
        return (weight * baseline).sum((-2, -1), keepdim=True)
