"""OPO: the variance-minimising baseline, estimated from the other samples.

    ĝ = 1/S Σᵢ (f(zᵢ) − bᵢ) ∇ log p(zᵢ),    zᵢ ~ p
    bᵢ = Σ_{j≠i} wⱼ f(zⱼ) / Σ_{j≠i} wⱼ,    wⱼ = ‖∇ log p(zⱼ)‖² = ‖zⱼ − π‖²

Without i the ratio estimates E[w f]/E[w], the best constant baseline (`optimal_baseline`), and ĝ is
unbiased; with the own sample in it, as in the authors' form, it is not, not even in direction.
Their form takes the length of an answer for w: where all are as long it is `grpo` with
scale = none.  For two samples this is `rloo`.  For few it often varies more than that: the noise of
the ratio costs more than the weights gain.

The baseline subtracts differences of costs under weights that sum to one, in log space: w of the
likeliest category may be 10¹² times smaller than the others', and Σ w − wᵢ would lose it.

Hao, Dong, Wu, Huang, Chi & Wei, "On-policy RL with optimal reward baseline", 2025, arXiv
2505.23585; Greensmith, Bartlett & Baxter, "Variance reduction techniques for gradient estimates in
reinforcement learning", JMLR 5, 2004.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla, sample, without_each
from gradest.knobs import AtLeast2


@dataclass(eq=False)
class OPO(Estimator):
    laws = LAWS
    evaluations = "samples"
    samples: AtLeast2 = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        log_w = self._log_weights(logits.detach(), z)  # [R, S]
        own = torch.eye(self.samples, dtype=torch.bool, device=z.device)
        weight = log_w.unsqueeze(1).masked_fill(own, -torch.inf).softmax(2)  # [R, S, S]
        advantage = (weight * (cost.unsqueeze(2) - cost.unsqueeze(1))).sum(2)  # [R, S]
        score = nabla(log_prob(logits.unsqueeze(1), z))  # [R, S]
        return (cost + advantage * score).mean(1)  # [R]

    def _log_weights(self, logits: Tensor, z: Tensor) -> Tensor:
        """log ‖z − π‖², with 1 − π as the sum of the others: [R, S]."""
        log_pi = logits.log_softmax(-1).unsqueeze(1)  # [R, 1, N, K]
        log_not_pi = without_each(log_pi).logsumexp(-1)
        log_score = torch.where(z > 0, log_not_pi, log_pi)  # log |z − π|, [R, S, N, K]
        log_w = (2 * log_score).flatten(2).logsumexp(2)
        return log_w.clamp(min=torch.finfo(z.dtype).min)  # of a point mass, whose w is zero
