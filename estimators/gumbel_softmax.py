"""Gumbel-softmax: the gradient of Concrete, with the discrete KL divergence.

    ĝ = ∇ f(y),    y = softmax((log α + G) / τ),    G ~ Gumbel

f must be differentiable on the simplex; one evaluation and one derivative.  Unbiased for E f(y),
biased for E f(z) even when f is linear.  The same sample as Concrete: the two papers differ in the
prior's term alone.  Here it is KL(Cat(α) ‖ Cat(a)), in closed form and added to the cost, whatever
`kl` says; there, for `kl = "relaxed"`, it is log q − log p of the relaxed sample, with densities.
Only the latter bounds the likelihood of the relaxed model, and its mean is never less.  So without
a prior this is `concrete`, draw by draw.  GRADE is the same sample, as is that of
torch.nn.functional.gumbel_softmax.

Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", 2017, arXiv 1611.01144.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, PATHWISE, SurrogateSample
from gradest.categorical import perturbed, softmax
from gradest.knobs import Positive


@dataclass(eq=False)
class GumbelSoftmax(SurrogateSample):
    relaxes = True
    laws = LAWS | {PATHWISE}
    aliases = ("grade",)
    degree = math.inf
    limit = {"temperature": 0.03}
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        return softmax(perturbed(logits, self.temperature))
