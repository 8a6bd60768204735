"""ARMS: leave-one-out over antithetic samples, corrected for their dependence.

    ĝ = 1/(n − 1) Σᵢ (f(bᵢ) − f̄) (bᵢ − θ) ρ,    ρ = θ(1 − θ) / (θ − P(bᵢ = bⱼ = 1))

for the logit φ of θ = σ(φ), with f̄ the mean of the n = `samples` costs.  In each latent the n bits
come from the uniforms of a Dirichlet copula, bᵢ = 1[Uᵢ < θ] for θ < ½ and 1[1 − Uᵢ < θ] beyond.
There, with p = min(θ, 1 − θ) and m = n − 1,

    ρ = (1 − p) / (1 − max(0, 2 − p^(−1/m))ᵐ)

Unbiased for every f, of which it needs values alone, since the bits are exchangeable.  n = 2 is
DisARM; independent bits (ρ = 1) would be leave-one-out.  Cost: n evaluations of f.

Dimitriev & Zhou, "ARMS: Antithetic-REINFORCE-multi-sample gradient for binary variables", 2021,
arXiv 2105.14141.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla
from gradest.knobs import AtLeast2

from ._bernoulli import bit_logits, vertices
from ._dirichlet_copula import copula_uniforms


@dataclass(eq=False)
class ARMS(Estimator):
    categories = 2
    laws = LAWS
    evaluations = "samples"
    samples: AtLeast2 = 4

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = bit_logits(logits)  # [R, N]
        rows, latents = phi.shape
        u = copula_uniforms((rows, self.samples, latents), phi)  # [R, S, N]
        rare = u < (-phi.detach().double().abs()).sigmoid().unsqueeze(1)
        b = rare ^ (phi >= 0).unsqueeze(1)  # [R, S, N]
        cost = f(vertices(b, logits))  # [R, S]
        advantage = cost - cost.mean(1, keepdim=True)
        # Σᵢ (f(bᵢ) − f̄) = 0, so θ drops out of bᵢ − θ.
        g = (advantage.unsqueeze(-1) * b.to(phi)).sum(1) / (self.samples - 1)  # [R, N]
        return cost.mean(1) + (g * self._rho(phi.detach().abs()) * nabla(phi)).sum(-1)  # [R]

    def _rho(self, size: Tensor) -> Tensor:
        """ρ from |φ|: p = σ(−|φ|), and p^(−1/m) = exp(softplus(|φ|)/m)."""
        m = self.samples - 1
        # Beyond log 2 the maximum is 0 anyway, and the exponential would overflow.
        both = 2 - (softplus(size) / m).clamp(max=math.log(2)).exp()
        return size.sigmoid() / (1 - both**m)
