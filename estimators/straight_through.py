"""Straight-through: a hard sample forward, a chosen Jacobian backward.

    ĝ = J(π) f'(z)  or  ĝ = f'(z),    z ~ Cat(π),    J(π) = diag(π) − ππᵀ

With `jacobian` = softmax, the default, J(π) is the Jacobian of π: unbiased if f is affine in each
latent, biased if f is nonlinear in one.  With identity, the mean is that of f' instead of J(π) f',
so that it is biased even for affine f and does not sum to zero over the categories.  f' is taken at
the vertex, so the estimate depends on how f extends off the vertices.

Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", 2013, arXiv 1308.3432.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import nabla, sample, softmax, straight_through


@dataclass(eq=False)
class StraightThrough(SurrogateSample):
    degree = 1
    jacobian: Literal["softmax", "identity"] = "softmax"

    def draw(self, logits: Tensor) -> Tensor:
        z = sample(logits)  # [R, N, K]
        if self.jacobian == "softmax":
            return straight_through(z, softmax(logits))
        return z + nabla(logits)
