"""Straight-through: a hard sample forward, the softmax's Jacobian backward.

    ĝ = J(π) f'(z),    z ~ Cat(π),    J(π) = diag(π) − ππᵀ

Exact in mean when f is affine in each latent; biased as soon as f curves within one.  f' is taken
at the vertex, so the estimate depends on how f extends off the vertices.

Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", 2013, arXiv 1308.3432.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from gradest import Cost, Estimator
from gradest.categorical import sample, softmax, straight_through


@dataclass(eq=False)
class StraightThrough(Estimator):
    unbiased: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        return f(straight_through(z, softmax(logits)))  # [R]
