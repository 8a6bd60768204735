"""ReinMax-CV: ReinMax with a control variate from Gumbel-softmax given z.

    ĝ = J_ReinMax f'(z) + η (J_GR − J_GS) f'(z),    z ~ Cat(π)
    J_GS = 1/τ J(softmax(x/τ)),    x ~ log ½(π + z) + G given argmax x = z

J_GR is the mean of M such matrices, and J_GS one more, drawn apart.  Both have the same mean given
z, so E ĝ is ReinMax's for every η, τ and M: exact for f quadratic in each latent, biased beyond.
(Noise that is not conditioned on z would shift the mean in proportion to η.)  But ReinMax has no
noise left once z is known, and what is independent of it cannot cancel any:

    Var ĝ = Var ReinMax + η² (1 + 1/M) E Var(J_GS f'(z) | z)

The paper reports less variance; its equations leave the noise of J_GS open, and this is the reading
that keeps the mean.  η = 0 is reinmax.

f must be differentiable at the vertices; one evaluation and one derivative, whatever M;
the paper takes M = 100.

Wang & Bui, "Beyond ReinMax: low-variance gradient estimators for discrete latent variables", 2026,
arXiv 2603.08257.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample
from gradest.knobs import AtLeast1, Positive

from ._conditional import conditional_pulls
from ._derivative import cost_and_derivative
from ._reinmax import reinmax


@dataclass(eq=False)
class ReinMaxCV(Estimator):
    unbiased = False
    differentiates = True
    laws = LAWS
    degree = 2
    evaluations = "1"
    slow = "draws the noise of M + 1 relaxed samples for one evaluation"
    eta: float = 1.0
    temperature: Positive = 0.7
    samples: AtLeast1 = 10

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost, slope = cost_and_derivative(f, z)  # [R], [R, N, K]
        mixture = torch.logaddexp(logits.detach().log_softmax(-1), z.log())  # log (π + z)
        pulls = conditional_pulls(mixture, z, self.temperature, self.samples + 1)(slope)
        control = pulls[:, 1:].mean(1) - pulls[:, 0]  # (J_GR − J_GS) f'(z), [R, N, K]
        g = slope * reinmax(logits, z) + self.eta * control * nabla(logits)
        return cost + g.sum((-2, -1))  # [R]
