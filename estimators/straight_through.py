"""Straight-through: a hard sample forward, the Jacobian of choice backward.

    ĝ = J(π) f'(z)  or  ĝ = f'(z),    z ~ Cat(π),    J(π) = diag(π) − ππᵀ

`softmax`, the default, takes J(π), the Jacobian of π: exact in mean when f is affine in each
latent, biased as soon as f curves within one.  `identity` takes the identity: biased even for
affine f, whose mean is f' instead of J(π) f', and not summing to zero over the categories.
f' is taken at the vertex, so the estimate depends on how f extends off the vertices.

Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", 2013, arXiv 1308.3432.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, softmax, straight_through


@dataclass(eq=False)
class StraightThrough(SurrogateSample):
    degree = 1
    jacobian: Literal["softmax", "identity"] = "softmax"

    def draw(self, logits: Tensor) -> Tensor:
        z = sample(logits)  # [R, N, K]
        soft = softmax(logits) if self.jacobian == "softmax" else logits
        return straight_through(z, soft)  # [R]
