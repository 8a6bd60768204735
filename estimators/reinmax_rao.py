"""ReinMax-Rao: ReinMax with Gumbel-Rao's Jacobian in place of the midpoint's.

    ĝ = 2 J_GR f'(z) − ½ J(π) f'(z),    z ~ Cat(π)
    J_GR = 1/M Σₘ 1/τ J(softmax(xₘ/τ)),    x ~ log ½(π + z) + G given argmax x = z

J(π) = diag(π) − ππᵀ, that of ReinMax at π alone where there is 2 J(½(π + z)).  The noise in J_GR is
not what the midpoint has on average: as τ → 0 the matrix tends to ½ s sᵀ, s = z − π, whose mean is
half the gradient of an affine f, and beyond τ of about 3 the second term outweighs the first, and
the mean points the wrong way.  Biased for affine f at every τ: a shrunken gradient, which has a
lower variance than ReinMax's.

f must be differentiable at the vertices; one evaluation and one derivative, whatever M; the authors
take τ = 1 and M = 100.

Wang & Bui, "Beyond ReinMax: low-variance gradient estimators for discrete latent variables", 2026,
arXiv 2603.08257.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, softmax, with_pullback
from gradest.knobs import AtLeast1, Positive

from ._conditional import conditional_pulls
from ._derivative import softmax_pull


@dataclass(eq=False)
class ReinMaxRao(SurrogateSample):
    slow = "draws the noise of M relaxed samples for one evaluation"
    temperature: Positive = 1.0
    samples: AtLeast1 = 10

    def draw(self, logits: Tensor) -> Tensor:
        z, phi = sample(logits), logits.detach()  # [R, N, K]
        mixture = torch.logaddexp(phi.log_softmax(-1), z.log())  # log (π + z)
        pulls = conditional_pulls(mixture, z, self.temperature, self.samples)
        pi = softmax(phi)

        def pullback(slope: Tensor) -> Tensor:
            return 2 * pulls(slope).mean(1) - softmax_pull(pi, slope) / 2

        return with_pullback(z, logits, pullback)
