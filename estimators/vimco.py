"""VIMCO: the score function of a multi-sample bound, the other samples as baseline.

    ĝ = −Σᵢ (L̂ − L̂₋ᵢ) ∇ log q(zᵢ) − Σᵢ w̃ᵢ ∇ log wᵢ,    zᵢ ~ q,    i = 1 … m

    L̂ = log 1/m Σᵢ wᵢ,    w̃ᵢ = wᵢ / Σⱼ wⱼ,    −log wᵢ = f(zᵢ)

L̂₋ᵢ is L̂ with log wᵢ replaced by the mean of the other log w, a geometric mean of weights: it does
not depend on zᵢ, so that ĝ is unbiased for the gradient of E −L̂, the bound as a cost.  The second
sum is ∇(−L̂) at fixed samples.  It is there where wᵢ itself depends on the logits, as
p(x, zᵢ)/q(zᵢ) does, and it is what a model's own parameters get.  m is the objective's, no knob.

On the mean of the costs in the place of the bound the same construction is leave-one-out.

Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016, arXiv 1602.06725.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import leave_one_out_mean, log_prob, nabla, sample


@dataclass(eq=False)
class VIMCO(Estimator):
    objective = "bound"
    laws = LAWS - {"scale"}
    evaluations = "m"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        m = f.samples
        z = sample(logits, m)  # [R, m, N, K]
        log_w = -f(z)  # [R, m]
        bound = log_w.logsumexp(1) - math.log(m)  # L̂, [R]
        own = torch.eye(m, dtype=torch.bool, device=z.device)
        others = leave_one_out_mean(log_w, dim=1).unsqueeze(2)  # [R, m, 1]
        replaced = torch.where(own, others, log_w.unsqueeze(1))  # row i without wᵢ, [R, m, m]
        without = replaced.logsumexp(2) - math.log(m)  # L̂₋ᵢ, [R, m]
        score = nabla(log_prob(logits.unsqueeze(1), z))  # [R, m]
        return -(bound + ((bound.unsqueeze(1) - without) * score).sum(1))  # [R]
