"""ReinDGE: ReDGE with ReinMax for the last step of its chain.

    ĝ = ½ [J(y) + (z − y)(z − y)ᵀ] f'(z) + γ (∂x₁/∂log α)ᵀ J(y) f'(z),    z ~ Cat(y)
    y = softmax(log α + γ x₁),    γ = a₁/σ₁²

with x₁ from the chain of `redge`, σ = 1 − a and J(y) = diag(y) − yyᵀ: ReinMax where log α enters
the last step directly, straight-through where it enters through the chain.  Samples have the
distribution of that chain, not Cat(α), so that the value is biased, too.  At n = 2 there is no
chain: ĝ is exact for the quadratic f of each latent under the distribution that it samples, and for
t₁ → 1, where that is Cat(α), it is reinmax.

f must be differentiable at the vertices; one evaluation and one derivative.

Gourevitch, Durmus, Moulines, Olsson & Janati, "Categorical reparameterization with denoising
diffusion models", 2026, arXiv 2601.00781.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import nabla, sample, softmax, straight_through
from gradest.knobs import AtLeast2
from gradest.randomness import draws

from ._denoising import denoised, gain, of_standard_noise, schedule
from ._reinmax import reinmax


@dataclass(eq=False)
class ReinDGE(SurrogateSample):
    own_distribution = True
    slow = "differentiates through every step of a chain"
    steps: AtLeast2 = 3  # n, the points of the schedule
    t1: Annotated[float, Gt(0), Le(1)] = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        noise = draws().normal(logits.shape, logits).to(logits)  # [R, N, K]
        points = schedule(self.steps, self.t1)
        x, phi = denoised(noise, points, of_standard_noise(logits))  # [R, N, K]
        z, added = sample(phi), gain(points[0]) * x
        through_the_chain = nabla(softmax(logits.detach() + added))
        return straight_through(z, reinmax(logits + added.detach(), z) + through_the_chain)
