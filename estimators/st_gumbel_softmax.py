"""Straight-through Gumbel-softmax: a hard sample forward, its relaxation backward.

    ĝ = 1/τ J(y) f'(b),    z = (log α + G) / τ,    b = argmax z,    y = softmax(z)

b and y share the noise G.  As τ → 0 the mean becomes ReinMax's, exact for quadratic f, and the
variance grows as 1/τ.  GRADE-STE is the same sample, as is that of
torch.nn.functional.gumbel_softmax with hard=True.

Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", 2017, arXiv 1611.01144.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import likeliest, perturbed, softmax, straight_through
from gradest.knobs import Positive


@dataclass(eq=False)
class STGumbelSoftmax(SurrogateSample):
    aliases = ("grade_ste",)
    degree = 2
    limit = {"temperature": 0.05}
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        z = perturbed(logits, self.temperature)  # [R, N, K]
        return straight_through(likeliest(z.detach()), softmax(z))
