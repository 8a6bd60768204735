"""Concrete: the reparameterised gradient of a relaxed sample.

    ĝ = ∇ f(y),    y = softmax((log α + G) / λ),    G ~ Gumbel

Unbiased for E f(y), biased for E f(z) even when f is linear: the bias shrinks as λ², the variance
grows as 1/λ.  On a task without a prior this is also Gumbel-softmax.

Maddison, Mnih & Teh, "The Concrete distribution: a continuous relaxation of discrete random
variables", 2017, arXiv 1611.00712.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from gradest import Cost, Estimator
from gradest.categorical import gumbel, softmax
from gradest.knobs import Positive


@dataclass(eq=False)
class Concrete(Estimator):
    unbiased: ClassVar[bool] = False
    relaxes: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    temperature: Positive = 0.5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = logits + gumbel(logits)  # [R, N, K]
        return f(softmax(z / self.temperature))  # [R]
