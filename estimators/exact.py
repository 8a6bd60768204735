"""Exact enumeration of all K^N outcomes.

    ĝ = ∇ Σ_z p(z) f(z)

The variance is zero, and so is the bias: the reference for all other estimators.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, PATHWISE, Cost, Estimator
from gradest.categorical import log_prob
from gradest.measurement import LIMIT, all_codes


@dataclass(eq=False)
class Exact(Estimator):
    outcomes = LIMIT
    laws = LAWS | {PATHWISE}
    evaluations = "K ** N"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = all_codes(logits).unsqueeze(0)  # [1, K^N, N, K]
        cost = f(z.expand(len(logits), *z.shape[1:]))  # [R, K^N]
        return (log_prob(logits.unsqueeze(1), z).exp() * cost).sum(1)  # [R]
