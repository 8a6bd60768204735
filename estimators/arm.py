"""ARM: augment, REINFORCE, merge: one uniform makes two antithetic samples.

    ĝ = (f(b̃) − f(b)) (u − ½),    u ~ U(0, 1)ᴺ,    b = 1[u < θ],    b̃ = 1[u > 1 − θ]

for the logit φ of θ = σ(φ), with b and b̃ whole vectors of bits.  Unbiased for every f, of which it
needs values alone.  Its noise does not vanish where b = b̃ in a coordinate; DisARM integrates that
part out.  Cost: 2 evaluations of f.

Yin & Zhou, "ARM: augment-REINFORCE-merge gradient for stochastic binary networks", 2019,
arXiv 1807.11143.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla

from ._bernoulli import antithetic_pair, bit_logits, vertices


@dataclass(eq=False)
class ARM(Estimator):
    categories = 2
    laws = LAWS
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        phi = bit_logits(logits)  # [R, N]
        u, pair = antithetic_pair(logits)  # [R, N], [R, 2, N]
        cost = f(vertices(pair, logits))  # [R, 2]
        g = (cost[:, 1:] - cost[:, :1]) * (u - 0.5).to(phi)  # [R, N]
        return cost.mean(1) + (g * nabla(phi)).sum(-1)  # [R]
