"""ReinMax: second-order straight-through.

    ĝ = ½ [J(π) + s sᵀ] f'(z),    z ~ Cat(π),    s = z − π,    J(π) = diag(π) − ππᵀ

The paper writes J(π) + s sᵀ = 4 J(½(π + z)) − J(π).  The mean is the trapezoid rule between every
pair of categories, hence exact for f quadratic in each latent; biased for a cubic f, and not
always less than straight_through.  An affine f, which straight_through gets without variance, has a
positive one.  ZGR is the same estimator at temperature 1.

A temperature τ > 1 softens what follows z, and z itself stays Cat(π):

    ĝ = [2 J(½(π_τ + z)) − ½ J(π)] f'(z),    π_τ = softmax(log α / τ)

without a factor 1/τ.  It is of second order at τ = 1 alone.

f must be differentiable at the vertices; one evaluation and one derivative.

Liu, Dong, Liu, Yu & Gao, "Bridging discrete and backpropagation: straight-through and beyond",
2023, arXiv 2304.08612.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, straight_through

from ._reinmax import reinmax


@dataclass(eq=False)
class ReinMax(SurrogateSample):
    aliases = ("zgr",)
    degree = 2
    temperature: Annotated[float, Ge(1)] = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        z = sample(logits)  # [R, N, K]
        return straight_through(z, reinmax(logits, z, self.temperature))
