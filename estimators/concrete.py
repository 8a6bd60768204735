"""Concrete: the reparameterised gradient of a relaxed sample.

    ĝ = ∇ f(y),    y = softmax((log α + G) / λ),    G ~ Gumbel

Unbiased for E f(y), biased for E f(z) even when f is linear: the bias shrinks as λ², the variance
grows as 1/λ.  On a task without a prior this is also Gumbel-softmax.

Maddison, Mnih & Teh, "The Concrete distribution: a continuous relaxation of discrete random
variables", 2017, arXiv 1611.00712.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gradest import LAWS, PATHWISE, Cost, Estimator
from gradest.categorical import gumbel, softmax
from gradest.knobs import Positive


@dataclass(eq=False)
class Concrete(Estimator):
    unbiased: ClassVar[bool] = False
    relaxes: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]] = LAWS | {PATHWISE}
    degree: ClassVar[float | None] = math.inf
    limit: ClassVar[Mapping[str, Any]] = {"temperature": 0.03}
    evaluations: ClassVar[str] = "1"
    temperature: Positive = 0.5

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = logits + gumbel(logits)  # [R, N, K]
        return f(softmax(z / self.temperature))  # [R]
