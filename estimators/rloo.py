"""RLOO: REINFORCE with a leave-one-out baseline.

    ĝ = 1/S Σₛ (f(zₛ) − f̄₋ₛ) ∇ log p(zₛ),    zₛ ~ p,    f̄₋ₛ = mean of the other S − 1 costs

The baseline is independent of zₛ, so ĝ is unbiased for every S ≥ 2.  Also known as LOORF.

Kool, van Hoof & Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import ScoreFunction
from gradest.categorical import leave_one_out_mean
from gradest.knobs import AtLeast2


@dataclass(eq=False)
class RLOO(ScoreFunction):
    aliases = ("loorf",)
    samples: AtLeast2 = 2

    def advantages(self, cost: Tensor) -> Tensor:
        return cost - leave_one_out_mean(cost, dim=1)  # [R, S]
