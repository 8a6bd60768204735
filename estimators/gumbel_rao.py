"""Gumbel-Rao: straight-through Gumbel-softmax, averaged given the hard sample.

    ĝ = 1/M Σₘ 1/τ J(yₘ) f'(b),    b ~ Cat(α),    yₘ = softmax(zₘ/τ),    zₘ ~ log α + G given b

J(y) = diag(y) − yyᵀ.  The mean is that of st_gumbel_softmax, the case M = 1 in distribution; the
variance falls with M towards that of E[ĝ | b].  As τ → 0, E[ĝ | b] is ReinMax.  Biased for E f:
even an affine f has an error of order τ².

zₘ is held fixed: ∂/∂log α acts as it does on log α + G with the noise G given.  Differentiating the
way in which the conditional noise depends on log α would be another estimator.

f must be differentiable at the vertices; one evaluation and one derivative, whatever M.

Paulus, Maddison & Krause, "Rao-Blackwellizing the straight-through Gumbel-softmax gradient
estimator", 2021, arXiv 2010.04838.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, with_pullback
from gradest.knobs import AtLeast1, Positive

from ._conditional import conditional_pulls


@dataclass(eq=False)
class GumbelRao(SurrogateSample):
    degree = 2
    limit = {"temperature": 0.05}
    slow = "draws the noise of M relaxed samples for one evaluation"
    samples: AtLeast1 = 10
    temperature: Positive = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        b = sample(logits)  # [R, N, K]
        pulls = conditional_pulls(logits, b, self.temperature, self.samples)
        return with_pullback(b, logits, lambda slope: pulls(slope).mean(1))
