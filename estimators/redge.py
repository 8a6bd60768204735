"""ReDGE: straight-through at the end of a chain that denoises a Gaussian.

    x_{n−1} ~ N(0, I),    y_t = softmax(log α + a_t x_t/σ_t²),    σ_t = 1 − a_t
    x_{t−1} = a_{t−1} y_t + σ_{t−1} (x_t − a_t y_t)/σ_t    for t = n − 1 … 2
    ĝ = (∂y₁/∂log α)ᵀ f'(z),    z ~ Cat(y₁)

y_t is the exact mean of a one-hot z ~ Cat(α) given x_t = a_t z + σ_t ε, and a falls evenly from
1 − t₁ to 10⁻⁴.  The derivative goes through the whole chain.  A chain of few steps does not end
at Cat(α): the samples have another distribution, which tends to it as n grows, so that the value is
biased, too.  For affine f, ĝ is exact for that distribution, though not for Cat(α).  At n = 2 and
t₁ → 1 there is no chain, and it is straight_through; between, t₁ trades bias for variance.

f must be differentiable at the vertices; one evaluation and one derivative.

Gourevitch, Durmus, Moulines, Olsson & Janati, "Categorical reparameterization with denoising
diffusion models", 2026, arXiv 2601.00781.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, softmax, straight_through
from gradest.knobs import AtLeast2
from gradest.randomness import draws

from ._denoising import denoised, of_standard_noise, schedule


@dataclass(eq=False)
class ReDGE(SurrogateSample):
    own_distribution = True
    steps: AtLeast2 = 3  # n, the points of the schedule
    t1: Annotated[float, Gt(0), Le(1)] = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        noise = draws().normal(logits.shape, logits).to(logits)  # [R, N, K]
        points = schedule(self.steps, self.t1)
        _, phi = denoised(noise, points, of_standard_noise(logits))  # the logits of y₁
        return straight_through(sample(phi), softmax(phi))
