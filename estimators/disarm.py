"""DisARM, also known as U2G: ARM with its uniform integrated out.

    ĝ = ½ (f(b) − f(b̃)) (b − b̃) max(θ, 1 − θ),    b = 1[u < θ],    b̃ = 1[u > 1 − θ]

for the logit φ of θ = σ(φ), with b and b̃ whole vectors of bits; max(θ, 1 − θ) = σ(|φ|).  Unbiased
for every f, of which it needs values alone; ĝ = E[ARM | b, b̃], so its variance is at most ARM's.
For one latent it also beats leave-one-out with two samples, for more there is no order.  Cost: 2
evaluations of f.  The first paper has it as DisARM, the second as U2G.

Dong, Mnih & Tucker, "DisARM: an antithetic gradient estimator for binary latent variables", 2020,
arXiv 2006.10680; Yin, Ho, Yan, Qian & Zhou, "Probabilistic best subset selection via
gradient-based optimization", 2020, arXiv 2006.06448.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla

from ._bernoulli import antithetic_pair, bit_logits, vertices


@dataclass(eq=False)
class DisARM(Estimator):
    categories = 2
    laws = LAWS
    aliases = ("u2g",)
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = bit_logits(logits)  # [R, N]
        _, pair = antithetic_pair(logits)  # [R, 2, N]
        cost = f(vertices(pair, logits))  # [R, 2]
        b, b_tilde = pair.to(phi).unbind(1)  # [R, N]
        g = 0.5 * (cost[:, :1] - cost[:, 1:]) * (b - b_tilde) * phi.abs().sigmoid()  # [R, N]
        return cost.mean(1) + (g * nabla(phi)).sum(-1)  # [R]
