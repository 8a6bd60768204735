"""ReDGE-cov: ReDGE from noise with the mean and the variances of Cat(α).

    x_{n−1} = π + √c ε,    c = max(π (1 − π), 0.1),    ε ~ N(0, I)
    y_t = softmax(log α + (a_t x_t − a_t σ_t π − ½ a_t²)/(c σ_t²)),    σ_t = 1 − a_t
    x_{t−1} = a_{t−1} y_t + σ_{t−1} (x_t − a_t y_t)/σ_t    for t = n − 1 … 2
    ĝ = (∂y₁/∂log α)ᵀ f'(z),    z ~ Cat(y₁)

the chain of `redge` with the posterior for this noise; the derivative goes through π and c as well.
Less biased than `redge` at equal steps, with a higher variance, and samples that are further from
Cat(α), which is reached as n grows.  At n = 2 and t₁ → 1 it is straight_through.

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

from ._denoising import denoised, schedule

_LEAST = 0.1  # of the variances of the noise


@dataclass(eq=False)
class ReDGECov(SurrogateSample):
    own_distribution = True
    slow = "differentiates through every step of a chain"
    steps: AtLeast2 = 5  # n, the points of the schedule
    t1: Annotated[float, Gt(0), Le(1)] = 0.5

    def draw(self, logits: Tensor) -> Tensor:
        pi = softmax(logits)  # [R, N, K]
        c = (pi * (1 - pi)).clamp(min=_LEAST)

        def posterior(x: Tensor, a: float) -> Tensor:
            return logits + (a * x - a * (1 - a) * pi - a**2 / 2) / (c * (1 - a) ** 2)

        noise = draws().normal(logits.shape, logits).to(logits)  # [R, N, K]
        _, phi = denoised(pi + c.sqrt() * noise, schedule(self.steps, self.t1), posterior)
        return straight_through(sample(phi), softmax(phi))
