"""Invertible Gaussian reparameterisation (IGR): Gaussian noise, softened.

    ĝ = ∇ f(y),    y = softmax((κ/τ, log δ)),    κ = μ + σ ε ∈ R^{K−1},    ε ~ N(0, I)

The method has parameters (μ, σ) of its own.  Here they follow the logits: μ_k = log α_k − log α_K,
and σ is a knob, so ĝ is an unbiased estimate of the gradient of E f(y) through μ, of nothing
else: rounding y does not give Cat(α), and as τ → 0 the mean tends to the gradient for the rounded
law, not to ∇ E f(z).  With K = 2, δ = 1 and σ = 1.7 that law is Cat(α) to within 0.01, since
Φ(x/1.7) is nearly the logistic function.  With K > 2 the last category, which has no noise of its
own, is special.

f must be differentiable on the simplex; one evaluation and one derivative.  κ ↦ y is invertible, so
a KL divergence between such y is one between Gaussians.

Potapczynski, Loaiza-Ganem & Cunningham, "Invertible Gaussian reparameterization: revisiting the
Gumbel-softmax", 2020, arXiv 1912.09588.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, PATHWISE, SurrogateSample
from gradest.categorical import softmax
from gradest.knobs import Positive
from gradest.randomness import draws


@dataclass(eq=False)
class InvertibleGaussian(SurrogateSample):
    relaxes = True
    laws = LAWS - {"labels"} | {PATHWISE}
    temperature: Positive = 0.5
    sigma: Positive = 1.7
    delta: Positive = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        mu = logits[..., :-1] - logits[..., -1:]  # [R, N, K-1]
        kappa = mu + self.sigma * draws().normal(mu.shape, mu)
        last = torch.full_like(logits[..., -1:], math.log(self.delta))  # [R, N, 1]
        return softmax(torch.cat([kappa / self.temperature, last], -1))  # [R]
