"""A `torch.autograd.Function`, wrapped: straight-through, a hard sample with a soft gradient.

    ĝ = (∂π/∂ log α)ᵀ f'(z),    π = softmax(log α),    z ~ Cat(π)

The function replaces a Jacobian, so f is applied to what it returns, and f(z) is the value; torch
does the rest.  What it draws by itself is the one thing to change: the sample comes from outside.
Biased, but not for an f that is affine in each latent.

Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", 2013, arXiv 1308.3432.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import sample


class HardSample(torch.autograd.Function):
    """Stands for code from elsewhere: z in the forward pass, the identity of π in the backward."""

    @staticmethod
    def forward(ctx: Any, pi: Tensor, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@dataclass(eq=False)
class AutogradFunction(Estimator):
    unbiased = False
    differentiates = True
    degree = 1
    laws = LAWS
    evaluations = "1"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(HardSample.apply(logits.softmax(-1), sample(logits)))  # [R]
